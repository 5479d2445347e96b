"""What each question to a long audit log costs: CPU, time and memory of the whole command, from a warm index.

    python -m tests.support.question_costs FOLDER [--records 1000000] [--rounds 3] [--against CHECKOUT] [--warm]

The log is made in FOLDER if there is none, by the relay's own record functions: eight days, one file each. Printed are
what the index cost to build and the tail of a log to read, and of each question the medians of all rounds. With a
checkout of the relay as it was before, that one is asked the same in the same round. It has no DuckDB, so that it reads
the whole log. `--rounds 0` asks no questions, and `--warm` takes the index as it is.
"""

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing import Process
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from relay.core.events import Action, Client, Event
from tests.support.audit_days import BEGIN, FIRST, make_day

DAYS: Final = 8
A_TOKEN: Final = 3.12
"""Records of a token, on average, in a day that `make_day` makes."""
HELD_BACK: Final = 2000
"""Records at the end of the log that are written after the index is made."""
BASE: Final = 4000
"""Records of a short log that tails are added to. In a long one, the check of the records before the tail takes longer
than the tail."""
TAILS: Final = (2000, 20_000)
TAIL_ROUNDS: Final = 7
ROOT: Final = Path(__file__).parents[2]

SETTINGS: Final = """
[public]
url = "https://prices.example.com"
stream_url = "wss://prices.example.com"
[session]
verifier = "signed"
ref_key = "0123456789abcdef0123456789abcdef0123456789abcdef"
[session.signed]
algorithm = "HS256"
secret = "fedcba9876543210fedcba9876543210fedcba9876543210"
[endpoints.prices]
path = "/ws/prices"
channels = ["prices.>"]
[endpoints.trades]
path = "/ws/trades"
channels = ["trades.>"]
[grants]
trader.prices = ["prices.>"]
"""

OLD: Final = ("why", "who", "anomalies", "stats", "scopes")
"""The questions that a relay without an index knows. `scopes --unused` is the same work as `scopes`."""

QUESTIONS: Final = (
    ("why", "d3-jti-777"),
    ("why", "trader-77"),
    ("who", "prices", "--at", "2026-11-29T12:00"),
    ("anomalies",),
    ("anomalies", "--mark", "replay", "--since", "2026-11-29", "--until", "2026-11-30"),
    ("stats",),
    ("stats", "--since", "2026-11-29T06:00", "--until", "2026-11-30T06:00"),
    ("scopes",),
    ("scopes", "--unused"),
    ("scopes", "--candidate", "relay.toml"),
    ("holds", "--at", "2026-11-29T12:00"),
    ("refused",),
    ("publications", "prices.C3", "--since", "2026-11-29", "--until", "2026-11-30"),
    ("sent", "ref-trader-77"),
    ("recipients", "prices.C3", "--at", "2026-11-29T12:00"),
    ("diff", "2026-11-28..2026-11-29", "2026-11-29..2026-11-30"),
    ("sql", 'SELECT "user", scope FROM grants WHERE held'),
    ("sql", "SELECT reason, count(*) FROM denials GROUP BY 1"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU and of time, and MB of memory at most, of one process."""

    cpu_s: float
    wall_s: float
    memory_mb: float


def cost(arguments: Sequence[str], folder: Path, *, checkout: Path | None = None) -> Cost:
    """Run a command of `relay audit`, and return what it cost."""
    program = "from relay.__main__ import main; main()"
    if checkout is not None:
        program = "import sys; sys.modules['duckdb'] = None; " + program
    command = [sys.executable, "-c", program, "audit", *arguments]
    # as users have it: with compiled modules, and buffered output
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPATH"] = str(checkout or ROOT)
    begun = time.monotonic()
    with (folder / "answer.txt").open("wb") as out, (folder / "notes.txt").open("wb") as notes:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=notes)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"relay audit {' '.join(arguments)}: {(folder / 'notes.txt').read_text()}")
    return Cost(used.ru_utime + used.ru_stime, time.monotonic() - begun, used.ru_maxrss / 1024)


def make_log(folder: Path, records: int) -> None:
    """Write a log of so many records, and settings beside it."""
    head, first = FIRST, 1
    for number in range(DAYS):
        begin = BEGIN + timedelta(days=number)
        path = folder / ("audit.jsonl" if number == DAYS - 1 else f"audit-{first:012d}.jsonl")
        tokens = int(records / DAYS / A_TOKEN)
        more = [*_publications(begin), *_reports(begin, tokens // 10)]
        day = make_day(
            path, tokens=tokens, seed=number, begin=begin, prefix=f"d{number}-", after=head, more=more
        )
        head, first = day.head, first + sum(day.actions.values())
        sys.stderr.write(f"{first - 1:,} records\n")
    (folder / "relay.toml").write_text(SETTINGS)


def _publications(begin: datetime) -> Iterator[tuple[datetime, Event]]:
    """Yield a summary of each minute, with ten channels."""
    for minute in range(24 * 60):
        rows = [
            {
                "channel": f"prices.C{channel}",
                "epoch": "e",
                "first": minute * 600 + 1,
                "last": minute * 600 + 600,
            }
            | {"count": 600, "bytes": 60_000}
            for channel in range(10)
        ]
        since = (begin + timedelta(minutes=minute)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        relay = {"publisher": {"id": "market"}, "since": since, "publications": rows}
        client = Client(address="10.1.0.1")
        yield (
            begin + timedelta(minutes=minute + 1),
            Event(action=Action.PUBLISH_SUMMARY, client=client, relay=relay),
        )


def _reports(begin: datetime, count: int) -> Iterator[tuple[datetime, Event]]:
    """Yield reports of what connections were sent."""
    for number in range(count):
        at = begin + timedelta(seconds=number * 80_000 / count)
        user, first = f"trader-{number % 200}", number % 1440 * 600 + 1
        connection = {"id": f"d{(begin - BEGIN).days}-connection-{number}"}
        sent = [{"channel": "prices.C3", "epoch": "e", "first": first, "last": first + 599, "count": 600}]
        yield (
            at,
            Event(
                action=Action.CONNECTION_CHANNELS,
                user=user,
                endpoint="prices",
                relay={
                    "session": {"ref": f"ref-{user}"},
                    "connection": connection,
                    "channels": ["prices.C3"],
                    "count": 1,
                    "sent": sent,
                },
            ),
        )


def index_costs(folder: Path) -> None:
    """Make the index, and print what a record of it cost."""
    path = folder / "audit.jsonl"
    held_back = b"".join(_last_lines(path, HELD_BACK))
    os.truncate(path, path.stat().st_size - len(held_back))
    shutil.rmtree(folder / "audit-index", ignore_errors=True)
    made = cost(["stats"], folder)
    with path.open("ab") as end:
        end.write(held_back)
    cost(["stats"], folder)
    time.sleep(3)  # a file that was just changed is looked at twice
    cost(["stats"], folder)
    warm = median(cost(["stats"], folder).cpu_s for _ in range(3))
    records = 0
    for log in folder.glob("audit*.jsonl"):
        with log.open("rb") as file:
            records += sum(1 for _ in file)
    size = sum(file.stat().st_size for file in (folder / "audit-index").glob("*.parquet"))
    sys.stdout.write(
        f"{records:,} records; the index has {size / 1e6:.0f} MB, took {(made.cpu_s - warm) / records * 1e6:.1f} us of "
        f"CPU a record ({made.wall_s:.0f} s) and {made.memory_mb:.0f} MB of memory.\n"
    )


def tail_costs(folder: Path) -> None:
    """Print what a record costs that came after the index was made: in the first question, and in the next one.

    Each round has a log and an index of its own, and asks with and without the tail, one after the other.
    """
    lines = _last_lines(folder / "audit.jsonl", BASE + TAILS[-1])
    for count in TAILS:
        first, again = [], []
        for _ in range(TAIL_ROUNDS):
            with TemporaryDirectory(dir=folder) as aside:
                path = Path(aside, "audit.jsonl")
                path.write_bytes(b"".join(lines[:BASE]))
                asked = ["stats", "--file", str(path)]
                cost(asked, folder)
                without = cost(asked, folder).cpu_s
                with path.open("ab") as end:
                    end.write(b"".join(lines[BASE : BASE + count]))
                first.append((cost(asked, folder).cpu_s - without) / count * 1e6)
                again.append((cost(asked, folder).cpu_s - without) / count * 1e6)
        sys.stdout.write(
            f"A record of a tail of {count:,} takes {median(first):.1f} us ({min(first):.1f} to {max(first):.1f}) in "
            f"the first question, and {median(again):.1f} us in the next one.\n"
        )


def _last_lines(path: Path, count: int) -> list[bytes]:
    with path.open("rb") as file:
        file.seek(-count * 2000, os.SEEK_END)
        return file.readlines()[-count:]


def main() -> None:
    """Make the log if needed, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--warm", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "relay.toml").exists():
        # in a process of its own: the memory of this one is counted as that of each command at its begin
        maker = Process(target=make_log, args=(options.folder, options.records))
        maker.start()
        maker.join()
    for checkout in (ROOT, options.against):
        if checkout is not None:
            compileall.compile_dir(checkout / "relay", quiet=2)
    if not options.warm:
        index_costs(options.folder)
        tail_costs(options.folder)
    sys.stdout.write("CPU      time     memory   before                              question\n")
    for question in QUESTIONS if options.rounds else ():
        now, then = [], []
        cost(question, options.folder)
        for _ in range(options.rounds):
            now.append(cost(question, options.folder))
            if options.against is not None and question[0] in OLD and "--unused" not in question:
                then.append(cost(question, options.folder, checkout=options.against.resolve()))
        cpu_s, wall_s = median(one.cpu_s for one in now), median(one.wall_s for one in now)
        text = f"{cpu_s:5.2f} s  {wall_s:5.2f} s  {max(one.memory_mb for one in now):4.0f} MB  "
        if then:
            old_cpu_s, old_wall_s = median(one.cpu_s for one in then), median(one.wall_s for one in then)
            text += f"{old_cpu_s:5.2f} s {old_cpu_s / cpu_s:4.0f} x, {old_wall_s / wall_s:4.0f} x in time"
        sys.stdout.write(f"{text:<63}{' '.join(question)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
