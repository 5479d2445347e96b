"""`relay bench fanout`: many subscribers of one channel, and what one delivery costs.

Each run measures the relay and the yardstick one after the other, never together, with the same load; the
order changes from run to run, so that a machine that slows down favours neither. Everything but the server is
the same code, and each side's figures come with the load generator's own CPU.

From "all connections open" to "the end mark has arrived everywhere" the server's CPU is counted. The end mark
is a delivery like the others, so it counts in the price of one, but in no other figure.
"""

import contextlib
import secrets
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from relay.bench import BenchError
from relay.bench.counting import Counted
from relay.bench.opening import Target
from relay.bench.processes import Child, allow_open_files, cpu_of
from relay.bench.publishing import TickPublisher
from relay.bench.relays import RunningRelay, own_relay
from relay.bench.ticks import Ticks

STALL_S = 10.0
"""Nothing at all for so long, and the run is given up."""
OPEN_BASE_S = 30.0
OPEN_EACH_S = 0.05
"""Bound for opening all connections: a token and a handshake take 2 ms where nothing else runs."""
DELIVERY_S = 100e-6
"""Bound for the time of one delivery, seven times the yardstick's."""
FILES_BESIDE = 200
"""Files that a server has open beside its connections: databases, logs, listeners, the issuer's connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FanoutOptions:
    """What to measure. `rate` is ticks a second, 0: as fast as it goes. `given`: a relay that runs already."""

    subscribers: int
    rate: float
    ticks: int
    runs: int
    given: RunningRelay | None = None
    channel: str = "prices.BENCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One side of one run. CPU in seconds and, as `…_cores`, in shares of one core; None where it is unknown."""

    counted: Counted
    open_s: float
    published_per_s: float
    server_cpu_s: float | None

    @property
    def cpu_us_a_delivery(self) -> float | None:
        """CPU of the server for one delivery, in microseconds."""
        deliveries = self.counted.delivered + self.counted.ended
        return None if self.server_cpu_s is None or not deliveries else self.server_cpu_s * 1e6 / deliveries

    @property
    def deliveries_per_s(self) -> float | None:
        """Deliveries a second, from the first to the last that arrived."""
        return self.counted.delivered / self.counted.seconds if self.counted.seconds else None

    @property
    def deliveries_a_read(self) -> float | None:
        """How many ticks a subscriber found in one read: above 1, several shared a write."""
        return self.counted.delivered / self.counted.reads if self.counted.reads else None

    @property
    def server_cores(self) -> float | None:
        """How much of one core the server used."""
        return None if self.server_cpu_s is None else self.server_cpu_s / self.counted.wall_s

    @property
    def load_cores(self) -> float:
        """How much of one core the load generator used."""
        return self.counted.cpu_s / self.counted.wall_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Both sides of one run."""

    relay: Measured
    yardstick: Measured


Progress = Callable[[str, int], None]
"""Told what is going on, and how many ticks of it are out."""


class _Subject(Protocol):
    """A server that can be measured."""

    def target(self) -> Target: ...

    def cpu_s(self) -> float | None: ...

    def publish_all(self, published: Callable[[int], None]) -> float: ...

    def publish_end(self) -> None: ...


def measure_fanout(options: FanoutOptions, progress: Progress) -> list[Run]:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(options.subscribers + FILES_BESIDE)
    runs = []
    for number in range(options.runs):
        sides: dict[str, Measured] = {}
        for side in ("relay", "yardstick") if number % 2 == 0 else ("yardstick", "relay"):
            with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
                subject = _relay if side == "relay" else _yardstick
                told = partial(progress, f"run {number + 1} of {options.runs}, {side}")
                sides[side] = _measure(options, subject, Path(folder), told)
        runs.append(Run(relay=sides["relay"], yardstick=sides["yardstick"]))
    return runs


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of what is known, None if nothing is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _measure(
    options: FanoutOptions,
    start: "Callable[[FanoutOptions, Ticks, Path], contextlib.AbstractContextManager[_Subject]]",
    folder: Path,
    progress: Callable[[int], None],
) -> Measured:
    ticks = Ticks(run=secrets.token_hex(4), channel=options.channel)
    progress(0)
    with (
        start(options, ticks, folder) as subject,
        Child.run("The load generator", ["relay.bench.load"], folder / "load.log") as load,
    ):
        stall_s = STALL_S + (3 / options.rate if options.rate else 0)
        load.say(
            {
                "target": msgspec.to_builtins(subject.target()),
                "connections": options.subscribers,
                "ticks": options.ticks,
                "marker": ticks.marker.decode(),
                "end_marker": ticks.end_marker.decode(),
                "stall_s": stall_s,
            }
        )
        opened = load.hear(within_s=OPEN_BASE_S + OPEN_EACH_S * options.subscribers)

        def published(done: int) -> None:
            if load.has_spoken():  # it has given up
                raise _stalled(options, _read_counted(load, within_s=STALL_S), done)
            progress(done)

        cpu_before = subject.cpu_s()
        publish_s = subject.publish_all(published)
        load.say({"finish": True})
        answer = load.hear(within_s=STALL_S)
        if "counted" in answer:
            raise _stalled(options, msgspec.convert(answer["counted"], Counted), options.ticks)
        subject.publish_end()
        counted = _read_counted(load, within_s=2 * stall_s + DELIVERY_S * options.subscribers * options.ticks)
        cpu_after = subject.cpu_s()
    if counted.stalled or counted.closed:
        raise _stalled(options, counted, options.ticks)
    return Measured(
        counted=counted,
        open_s=opened["seconds"],
        published_per_s=max(1, options.ticks - 1) / publish_s,  # so many pauses lie between them
        server_cpu_s=None if cpu_before is None or cpu_after is None else cpu_after - cpu_before,
    )


def _read_counted(load: Child, *, within_s: float) -> Counted:
    return msgspec.convert(load.hear(within_s=within_s)["counted"], Counted)


def _stalled(options: FanoutOptions, counted: Counted, published: int) -> BenchError:
    expected = published * options.subscribers
    without_end = options.subscribers - counted.ended - counted.closed
    sentences = (
        f"The run came to a halt: {counted.delivered} of {expected} deliveries arrived, "
        f"{counted.closed} of {options.subscribers} connections were closed by the server, "
        f"and {without_end} others never got the last value. {counted.close_reason}"
    )
    return BenchError(sentences.strip())


class _RelaySubject:
    def __init__(self, relay: RunningRelay, options: FanoutOptions, ticks: Ticks) -> None:
        self._relay = relay
        self._options = options
        self._ticks = ticks
        self.publisher = TickPublisher(relay.internal, relay.publish_key)

    def target(self) -> Target:
        return self._relay.target(self._ticks.channel)

    def cpu_s(self) -> float | None:
        return self._relay.cpu_s()

    def publish_all(self, published: Callable[[int], None]) -> float:
        return self.publisher.publish_all(
            self._ticks, rate=self._options.rate, count=self._options.ticks, published=published
        )

    def publish_end(self) -> None:
        self.publisher.publish_end(self._ticks)


class _YardstickSubject:
    def __init__(self, child: Child, options: FanoutOptions) -> None:
        self._child = child
        self._options = options
        self._port = child.hear(within_s=STALL_S)["port"]

    def target(self) -> Target:
        return Target(stream=f"ws://127.0.0.1:{self._port}/")

    def cpu_s(self) -> float | None:
        return cpu_of(self._child.pid)

    def publish_all(self, published: Callable[[int], None]) -> float:
        """Let it publish by itself. It can't say how far it is, and is asked nothing in between."""
        options = self._options
        bound = STALL_S + DELIVERY_S * options.subscribers * options.ticks
        self._child.say({"go": True})
        answer = self._child.hear(within_s=bound + (options.ticks / options.rate if options.rate else 0))
        published(options.ticks)
        return float(answer["seconds"])

    def publish_end(self) -> None:
        self._child.say({"finish": True})


@contextlib.contextmanager
def _relay(options: FanoutOptions, ticks: Ticks, folder: Path) -> Iterator[_Subject]:
    with contextlib.ExitStack() as stack:
        relay = options.given or stack.enter_context(own_relay(folder, sessions=options.subscribers))
        subject = _RelaySubject(relay, options, ticks)
        stack.callback(subject.publisher.close)
        yield subject


@contextlib.contextmanager
def _yardstick(options: FanoutOptions, ticks: Ticks, folder: Path) -> Iterator[_Subject]:
    order = {"rate": options.rate, "ticks": options.ticks, "run": ticks.run, "channel": ticks.channel}
    with Child.run("The yardstick", ["relay.bench.yardstick"], folder / "yardstick.log") as child:
        child.say(order)
        yield _YardstickSubject(child, options)
