"""One side of one run: a load is opened, ticks are published, and all that must arrive is waited for.

From "all connections open" to "the end marks have arrived everywhere" the server's CPU is counted. The end marks
are deliveries like the others, so they count in the price of one, but in no other figure.

A side that can't keep the pace is not waited for without end: after twice the time that the ticks should have
taken and ten seconds more its publishing is stopped, and what was published until then is what must arrive.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from relay.bench import BenchError
from relay.bench.benchmarks.runs import STALL_S, Told
from relay.bench.load.processes import Child, wait_for_words
from relay.bench.load.servers import Subject
from relay.bench.load.subscribers import GroupOrder, Order
from relay.bench.load.ticks import Ticks
from relay.bench.load.totals import Counted

OPEN_BASE_S = 30.0
OPEN_EACH_S = 0.05
"""Bound for opening all connections: a token and a handshake take 2 ms where nothing else runs."""
DELIVERY_S = 100e-6
"""Bound for the time of one delivery, seven times the yardstick's."""
LOOK_S = 0.25
LATE_FACTOR, LATE_S = 2.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one side did. CPU in seconds and, as `…_cores`, in shares of one core; None where it is unknown.

    `complete` is False when its publishing was stopped because it was late.
    """

    counted: Counted
    open_s: float
    published: int
    published_per_s: float
    server_cpu_s: float | None
    complete: bool = True

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


class Delivery:
    """A load that is open, and a source that publishes to it when `start` says so."""

    def __init__(self, subject: Subject, load: Child, opened: dict[str, float], *, stall_s: float) -> None:
        self.subject = subject
        self._load = load
        self._connections = int(opened["open"])
        self._open_s = opened["seconds"]
        self._stall_s = stall_s
        self._cpu_before: float | None = None
        self._done: list[int] | None = None
        self._seconds = 0.0
        self.published = 0

    def start(self) -> None:
        """Let the source publish."""
        self._cpu_before = self.subject.cpu_s()
        self.subject.source.say({"go": True})

    def watch(self, *, within_s: float, others: Sequence[Child] = (), told: Callable[[int], None]) -> bool:
        """Wait until all is published, one of `others` has something to say, or for so long; True: all is.

        Raises:
            BenchError: if the load has given up meanwhile.
        """
        deadline = time.monotonic() + within_s
        source = self.subject.source
        while self._done is None and (left := deadline - time.monotonic()) > 0:
            wait_for_words([source, self._load, *others], within_s=min(left, LOOK_S))
            if self._load.has_spoken():
                raise self._halted(_counted(self._load, within_s=STALL_S))
            while self._done is None and source.has_spoken():
                self._hear(source)
            told(self.published)
            if any(other.has_spoken() for other in others):
                break
        return self._done is not None

    def window(self) -> None:
        """Let the latencies from here on be figures of their own."""
        self._load.say({"window": True})
        self._ask(within_s=STALL_S)

    def finish(self) -> Measured:
        """Stop publishing, if it is not done, and wait until everything has arrived.

        Raises:
            BenchError: if the server closed a connection, or the load gave up before all was published.
        """
        source = self.subject.source
        complete = self._done is not None
        if not complete:
            source.say({"stop": True})
        while self._done is None:
            self._hear(source, within_s=self._stall_s + DELIVERY_S * self._connections * self.published)
        self._load.say({"finish": self._done})
        self._ask(within_s=STALL_S)
        source.say({"finish": True})
        source.hear(within_s=self._stall_s + DELIVERY_S * self._connections * len(self._done))
        deliveries = self._connections * (self.published + len(self._done))
        counted = _counted(self._load, within_s=2 * self._stall_s + DELIVERY_S * deliveries)
        if not counted.is_whole:
            raise self._halted(counted)
        cpu_after = self.subject.cpu_s()
        return Measured(
            counted=counted,
            open_s=self._open_s,
            published=self.published,
            published_per_s=max(1, self.published - 1) / self._seconds,  # so many pauses lie between them
            server_cpu_s=None
            if self._cpu_before is None or cpu_after is None
            else cpu_after - self._cpu_before,
            complete=complete,
        )

    def _hear(self, source: Child, *, within_s: float = STALL_S) -> None:
        message = source.hear(within_s=within_s)
        if "done" in message:
            done: list[int] = message["done"]
            self._done, self._seconds, self.published = done, message["seconds"], sum(done)
        else:
            self.published = message["published"]

    def _ask(self, *, within_s: float) -> None:
        answer = self._load.hear(within_s=within_s)
        if "counted" in answer:
            raise self._halted(msgspec.convert(answer["counted"], Counted))

    def _halted(self, counted: Counted) -> BenchError:
        sentences = (
            f"The run came to a halt after {self.published:,} ticks: {counted.delivered:,} deliveries arrived, and "
            f"{counted.closed} of {self._connections} connections were closed by the server. "
            f"{counted.close_reason}"
        )
        return BenchError(sentences.strip())


@contextlib.contextmanager
def opened(
    subject: Subject,
    groups: Sequence[GroupOrder],
    ticks: Ticks,
    folder: Path,
    *,
    ticks_each: int,
    pause_s: float = 0.0,
) -> Iterator[Delivery]:
    """Open a load. `pause_s` is the longest time for which nothing may be due, `ticks_each` about how many ticks one
    connection will get.

    Raises:
        BenchError: if a connection can't be opened.
    """
    connections = sum(group.connections for group in groups)
    stall_s = STALL_S + pause_s
    with Child.run("The load generator", ["relay.bench.load.subscribers"], folder / "load.log") as load:
        load.say(Order(groups=list(groups), ticks=ticks, stall_s=stall_s, ticks_each=ticks_each))
        answer = load.hear(within_s=OPEN_BASE_S + OPEN_EACH_S * connections)
        yield Delivery(subject, load, answer, stall_s=stall_s)


def patience_s(planned_s: float) -> float:
    """Return how long publishing may take that should take `planned_s`."""
    return LATE_FACTOR * planned_s + LATE_S


def deliver(delivery: Delivery, *, within_s: float, total: int, told: Told) -> Measured:
    """Publish everything, but for no longer than `within_s`, and wait until it has arrived.

    Raises:
        BenchError: if it can't be completed.
    """
    told(0, total, "ticks")
    delivery.start()
    delivery.watch(within_s=within_s, told=lambda done: told(done, total, "ticks"))
    return delivery.finish()


def _counted(load: Child, *, within_s: float) -> Counted:
    return msgspec.convert(load.hear(within_s=within_s)["counted"], Counted)
