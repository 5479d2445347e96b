"""What is measured, either side in the same words: where the load connects, who publishes, whose CPU counts."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relay.bench.benchmarks.runs import STALL_S
from relay.bench.load import publisher as publishing
from relay.bench.load import yardstick
from relay.bench.load.processes import Child, cpu_of, memory_of
from relay.bench.load.relay_process import RunningRelay, own_relay
from relay.bench.load.targets import Target
from relay.bench.load.ticks import Ticks


class Where(Protocol):
    """Returns where to connect for some channels of one endpoint of our own relay, or of the one that is given."""

    def __call__(self, channels: Sequence[str], *, endpoint: str = "", interval_ms: int = 0) -> Target: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A server that can be measured. `source` is the process that publishes, `pid` the server's, if it is known."""

    target: Where
    source: Child
    pid: int | None

    def cpu_s(self) -> float | None:
        """Return the CPU seconds that the server has used so far, None if its process is unknown."""
        return None if self.pid is None else cpu_of(self.pid)

    def memory(self) -> int | None:
        """Return the server's memory in bytes, None if its process is unknown."""
        return None if self.pid is None else memory_of(self.pid)


@contextlib.contextmanager
def relay_subject(
    folder: Path,
    ticks: Ticks,
    *,
    sessions: int,
    given: RunningRelay | None = None,
    program: str = "relay.bench.load.publisher",
) -> Iterator[Subject]:
    """Start a relay with `sessions` people who may connect, or take the given one; `program` publishes to it."""
    with contextlib.ExitStack() as stack:
        relay = given or stack.enter_context(own_relay(folder, sessions=sessions))
        source = stack.enter_context(Child.run("The publisher", [program], folder / "publisher.log"))
        source.say(publishing.Order(ticks=ticks, url=relay.internal, key=relay.publish_key))
        source.hear(within_s=STALL_S)
        yield Subject(target=relay.target, source=source, pid=relay.pid)


@contextlib.contextmanager
def yardstick_subject(
    folder: Path,
    ticks: Ticks,
    *,
    interval_ms: int = 0,
    waits: bool = True,
    program: Sequence[str] = ("relay.bench.load.yardstick",),
) -> Iterator[Subject]:
    """Start the yardstick, which publishes by itself. `program` is the module that does so, with its arguments."""
    with Child.run("The yardstick", program, folder / "yardstick.log") as child:
        child.say(yardstick.Order(ticks=ticks, interval_ms=interval_ms, waits=waits))
        stream = f"ws://127.0.0.1:{child.hear(within_s=STALL_S)['port']}/"

        def target(channels: Sequence[str], *, endpoint: str = "", interval_ms: int = 0) -> Target:
            del endpoint, interval_ms  # everything is one endpoint here, and the interval is the server's
            return Target(stream=stream, channels=channels)

        yield Subject(target=target, source=child, pid=child.pid)
