"""What the check of a long audit log costs, on one core and on two, beside `sha256sum` of the same file.

    python -m tests.support.verify_costs FOLDER [--records 1000000] [--rounds 5]

The log is written in FOLDER if there is none, by a real auditor that signs checkpoints. Printed are the medians of all
rounds. In each round everything runs once, so that a slow minute of the machine is in all figures.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from relay.audit.writer import LogOptions
from relay.keys.files import create_signing_key
from relay.server.options import AuditKey
from tests.support.audit_signing import write
from tests.support.question_costs import Cost


def cost(command: Sequence[str], cores: int) -> Cost:
    """Run a command on so many cores, and return what it and its children cost."""
    used = os.times()
    begun = time.monotonic()
    own = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, own)), *command], capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout.decode()}{done.stderr.decode()}")
    wall_s, now = time.monotonic() - begun, os.times()
    return Cost(sum(now[2:4]) - sum(used[2:4]), wall_s, 0)


def rounds(log: Path, count: int) -> Iterator[tuple[Cost, Cost, Cost]]:
    """Yield what each round cost: the check on one core and on two, and the yardstick."""
    check = [sys.executable, "-m", "relay", "audit", "verify", str(log), "--keys", str(log.parent / "keys")]
    for _ in range(count):
        yield cost(check, 1), cost(check, 2), cost(["sha256sum", str(log)], 1)


def main() -> None:
    """Write the log if needed, and check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    log = options.folder / "audit.jsonl"
    if not log.exists():
        key = create_signing_key(options.folder / "keys")
        signed = LogOptions(signer=AuditKey(key.kid, key.key))
        asyncio.run(write(log, options.records, signed, batch=1000))
    one, two, hashed = zip(*rounds(log, options.rounds), strict=True)
    with log.open("rb") as file:
        records = sum(1 for _ in file)
    sys.stdout.write(f"{records:,} records, {log.stat().st_size / 1e6:,.0f} MB; CPU and time, medians\n")
    for name, costs in (("sha256sum", hashed), ("one core", one), ("two cores", two)):
        cpu_s, wall_s = median(each.cpu_s for each in costs), median(each.wall_s for each in costs)
        sys.stdout.write(
            f"{name:<10}{cpu_s:6.2f} s{wall_s:6.2f} s  {cpu_s / records * 1e6:5.2f} us a record\n"
        )
    ratios = sorted(both.wall_s / alone.wall_s for alone, both in zip(one, two, strict=True))
    sys.stdout.write(
        f"two cores take {median(ratios):.2f} of the time ({ratios[0]:.2f} to {ratios[-1]:.2f})\n"
    )


if __name__ == "__main__":
    main()
