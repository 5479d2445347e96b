"""What clients notice when workers are replaced, when a node dies and when the engine dies: a program that prints it.

    python -m tests.support.restarts workers FILE…    # two workers are replaced by SIGUSR2
    python -m tests.support.restarts node FILE…       # one of two nodes is killed with -9
    python -m tests.support.restarts engine FILE…     # the engine's master is killed; a Sentinel promotes its replica

The files are recorded market data, as `relay replay` takes them. Half of the sockets follow prices, half follow trades,
each of one symbol. Exit code 1: a promise was not kept; the last lines say which. Tests call `watch` with few sockets.
"""

import argparse
import contextlib
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from relay.bench.load import publisher
from relay.bench.load.clients import Target
from relay.bench.load.processes import Child
from relay.bench.load.ticks import MANY_TOGETHER, QUOTE, Ticks, script_line, write_script
from relay.net.sockets import raise_file_limit
from tests.support.engine_pairs import is_followed
from tests.support.engines import engine_server
from tests.support.relay_process import PUBLISHER_KEY, Relay
from tests.support.returning_clients import ENDS_WITHIN_S, Order, Window
from tests.support.sentinels import NAME, sentinel, sentinel_url
from tests.support.two_relays import on_engine, two_relays

WITHIN_S = 300.0
GONE_AFTER_S = 1.0
"""So long after kill -9, nothing comes any more from what was killed."""
BACK_S, BACK_FACTOR = 5.0, 1.5
"""All clients are back after so many seconds, or so much longer than it took to connect all of them."""
SLOWER = 3.0
"""How much the p99 of the prices may grow while workers are replaced."""
KNOCKING = 4
BUSY = " 503"
"""How a failed attempt ends that a busy relay asked to come back later. No quiet machine has any."""
KINDS = ("workers", "node", "engine")
Fault = Callable[[], None]
"""Does a fault, and returns when it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the clients got, in the time before the fault and from it on."""

    kind: str
    clients: int
    connects_per_s: float
    published: int
    before: Window
    after: Window

    @property
    def bound_s(self) -> float:
        """The seconds within which all have to be back."""
        return max(BACK_S, BACK_FACTOR * self.clients / self.connects_per_s)

    def broken(self) -> list[str]:
        """Return each promise that was not kept, without those about time."""
        after = self.after
        found = []
        if after.returned < after.ended:
            found.append(f"{after.ended - after.returned} clients did not come back")
        if after.lost or after.repeated:
            found.append(f"{after.lost} messages of streams were lost, {after.repeated} came twice")
        if after.old:
            found.append(f"{after.old} clients had an old price 2 s after their return")
        if self.kind != "engine" and after.gaps:
            found.append(f"{after.gaps} gaps in streams, which could have been resumed")
        cut = {what: count for what, count in after.refusals.items() if not what.endswith(BUSY)}
        if self.kind == "workers" and cut:
            found.append(f"attempts to connect were refused or cut: {cut}")
        return found

    def late(self) -> list[str]:
        """Return each promise about time that was not kept. They are for a quiet machine."""
        before, after = self.before, self.after
        found = []
        if self.kind == "workers" and after.refusals:
            found.append(f"attempts to connect failed: {after.refusals}")
        if after.back_s > self.bound_s and self.kind != "workers":
            found.append(f"the last client was back after {after.back_s:.1f} s, not {self.bound_s:.1f} s")
        if self.kind == "workers" and (after.p99_ms or 0) > SLOWER * (before.p99_ms or 0):
            found.append(f"the prices' p99 was {after.p99_ms} ms, after {before.p99_ms} ms before")
        return found

    def __str__(self) -> str:
        lines = [
            f"{self.clients} clients, {self.connects_per_s:.0f} connects/s, {self.published:,} published"
        ]
        lines += [f"{'':<12}{'before':>14}{'then':>14}"]
        for name in Window.__struct_fields__:
            pair = (getattr(window, name) for window in (self.before, self.after))
            lines.append(f"{name:<12}" + "".join(f"{_shown(value):>14}" for value in pair))
        return "\n".join(lines)


def _shown(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def watch(
    kind: str,
    relays: Sequence[Relay],
    fault: Fault,
    ticks: Ticks,
    folder: Path,
    *,
    clients: int,
    quiet_s: float,
    interval_ms: int = 0,
) -> Watched:
    """Let clients follow the ticks at all relays, of which the last one is published to, and do a fault."""
    sessions = [relays[0].session() for _ in range(clients)]

    def targets(kind: str, interval_ms: int) -> list[Target]:
        channels = [name for name in ticks.channels if name.startswith(f"{kind}.")]
        return [
            Target(
                stream=f"{relay.stream_url}/ws/{kind}",
                issuer=relay.url,
                endpoint=kind,
                sessions=sessions,
                channels=channels,
                interval_ms=interval_ms,
            )
            for relay in relays
        ]

    order = Order(
        prices=targets("prices", interval_ms),
        streams=targets("trades", 0),
        clients=clients,
        each=1,
        knocking=KNOCKING if kind == "workers" else 0,
    )
    published_to = publisher.Order(ticks=ticks, url=relays[-1].internal_url, key=PUBLISHER_KEY)
    with (
        Child.run("The publisher", folder, "tests.support.patient_publisher", order=published_to) as source,
        Child.run("The clients", folder, "tests.support.returning_clients", order=order) as program,
    ):
        source.hear(within_s=WITHIN_S)
        connects_per_s = program.hear(within_s=WITHIN_S)["connects_per_s"]
        source.say({"go": True})

        def ask(**order: object) -> None:
            program.say(order)
            program.hear(within_s=WITHIN_S)

        ask(after_s=0.0)
        ask(window=True)
        time.sleep(quiet_s)
        ask(after_s=0.0)
        ask(window=True)
        fault()
        ask(after_s=GONE_AFTER_S)
        source.say({"stop": True})
        while "finished" not in (told := source.hear(within_s=WITHIN_S)):
            published = told["published"]
        program.say({"finish": True})
        windows = msgspec.convert(program.hear(within_s=WITHIN_S + ENDS_WITHIN_S)["windows"], list[Window])
    return Watched(
        kind=kind,
        clients=2 * clients,
        connects_per_s=connects_per_s,
        published=published,
        before=windows[1],
        after=windows[2],
    )


def made_up(folder: Path, *, symbols: int, rate: float, seconds: float) -> Ticks:
    """Return ticks of prices and trades of some symbols in turn."""
    channels = [f"{kind}.{symbol}" for kind in ("prices", "trades") for symbol in range(symbols)]
    script = folder / "script"
    count = int(rate * seconds)
    lines = (script_line(number / rate, number % len(channels), QUOTE) for number in range(count))
    script.write_bytes(b"".join(lines))
    streams = frozenset(range(symbols, len(channels)))
    return _ticks(channels, script, count=count, rate=rate, pause_s=1 / rate, streams=streams)


def recorded(files: Sequence[Path], folder: Path, *, speed: float, seconds: float) -> Ticks:
    """Return the ticks of recordings."""
    script = write_script(files, folder / "script", speed=speed, seconds=seconds, show=lambda _: None)
    return _ticks(
        script.channels,
        script.path,
        count=script.total(),
        rate=script.total() / script.seconds,
        pause_s=script.pause_s,
        streams=frozenset(script.places("trades")),
    )


def _ticks(channels: list[str], script: Path, **more: object) -> Ticks:
    return msgspec.structs.replace(
        Ticks(run=secrets.token_hex(4), channels=channels, script=str(script), together=MANY_TOGETHER), **more
    )


def workers_of(relay: Relay) -> set[int]:
    """Return the process ids of a supervisor's workers."""
    assert relay.process is not None
    pid = relay.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def replace_workers(relay: Relay) -> None:
    """Replace the workers by SIGUSR2, and wait until those from before have ended."""
    before = workers_of(relay)
    assert relay.process is not None
    relay.process.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + WITHIN_S
    while before & workers_of(relay):
        assert time.monotonic() < deadline, relay.log_path.read_text()
        time.sleep(0.05)  # another process


@contextlib.contextmanager
def failing_over(folder: Path) -> Iterator[tuple[str, Fault]]:
    """Run a master, its replica and a Sentinel. Yields `engine.url`, and what kills the master."""
    for name in ("master", "replica", "sentinel"):
        (folder / name).mkdir()
    with engine_server("redis", folder / "master") as master:
        follows = ("--replicaof", "127.0.0.1", str(master.port))
        with (
            engine_server("redis", folder / "replica", *follows),
            sentinel(folder / "sentinel", master.port) as watching,
        ):
            deadline = time.monotonic() + WITHIN_S
            while watching.run("SENTINEL", "MASTER", NAME)[b"num-slaves"] != b"1" or not is_followed(master):
                assert time.monotonic() < deadline
                time.sleep(0.05)  # the Sentinel asks now and then
            yield sentinel_url(watching.port), master.stop


@contextlib.contextmanager
def deployment(kind: str, folder: Path) -> Iterator[tuple[Sequence[Relay], Fault]]:
    """Run the relays of a kind of fault, and yield what does it."""
    options: dict[str, Any] = {"history": 10_000, "limits": "unauthenticated_per_address = 100000"}
    environment = {"RELAY_LOG__LEVEL": "warning"}
    with contextlib.ExitStack() as stack:
        if kind == "engine":
            url, fault = stack.enter_context(failing_over(folder))
        else:
            (folder / "engine").mkdir()
            url = stack.enter_context(engine_server("redis", folder / "engine")).url
        if kind == "workers":
            relay = on_engine(folder / "relay", url, **options)
            relay.arguments, relay.environment = ("--workers", "2"), environment
            relay.start()
            stack.callback(relay.stop)
            yield [relay], partial(replace_workers, relay)
        else:
            one, other = stack.enter_context(two_relays(folder, url, environment=environment, **options))
            yield (one, other), one.kill if kind == "node" else fault


def main() -> int:
    """Measure what the command line says, and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.restarts", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("kind", choices=KINDS, help="what is replaced or killed")
    parser.add_argument("files", nargs="+", type=Path, help="recordings")
    parser.add_argument("--sockets", type=int, default=2000)
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds before the fault")
    parser.add_argument("--interval", type=int, default=100, help="interval of the prices in milliseconds")
    parser.add_argument("--speed", type=float, default=1.0, help="2 plays twice as fast")
    given = parser.parse_args()
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="restarts-") as name:
        folder = Path(name)
        ticks = recorded(given.files, folder, speed=given.speed, seconds=given.quiet + 120)
        with deployment(given.kind, folder) as (relays, fault):
            watched = watch(
                given.kind,
                relays,
                fault,
                ticks,
                folder,
                clients=given.sockets // 2,
                quiet_s=given.quiet,
                interval_ms=given.interval,
            )
    problems = watched.broken() + watched.late()
    sys.stdout.write("\n".join([str(watched), *problems, ""]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
