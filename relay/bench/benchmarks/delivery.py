"""One side of one run in which ticks are delivered to subscribers; and what benchmarks of deliveries have in common.

A load is opened, ticks are published, and all that must arrive is waited for. The server's CPU is counted from "all
connections are open" to "the end marks have arrived everywhere". The end marks are deliveries like the others, so they
count in the price of one, but in no other figure.

A side that can't keep the pace is not waited for without end: after twice the time that the ticks should have taken and
ten seconds more its publishing is stopped, and what was published until then must arrive.
"""

import abc
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Benchmark, Show, SideName
from relay.bench.load.counter import Counted, Latency
from relay.bench.load.processes import LOOK_S, STALL_S, Child, wait_for_words
from relay.bench.load.servers import Server, own_relay, publishing_to, yardstick_server
from relay.bench.load.subscribers import GroupOrder, Order
from relay.bench.load.ticks import Ticks
from relay.bench.report import Figure, Run, busy_note

OPEN_BASE_S = 30.0
OPEN_EACH_S = 0.05
"""Bound for opening all connections: a token and a handshake take 2 ms where nothing else runs."""
DELIVERY_S = 100e-6
"""Bound for the time of one delivery, seven times the yardstick's."""
LATE_FACTOR, LATE_S = 2.0, 10.0
KEPT_PACE = 0.97
"""Share of the asked rate below which the pace was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one side did. `complete` is False when the publishing was stopped because it was late."""

    counted: Counted
    open_s: float
    published: int
    published_per_s: float
    server_cpu_s: float
    complete: bool = True

    @property
    def cpu_us_a_delivery(self) -> float | None:
        """CPU of the server for one delivery, in microseconds."""
        total = self.counted.total
        deliveries = total.delivered + total.ended
        return self.server_cpu_s * 1e6 / deliveries if deliveries else None

    @property
    def deliveries_per_s(self) -> float | None:
        """Deliveries a second, from the first to the last that arrived."""
        return self.counted.total.delivered / self.counted.seconds if self.counted.seconds else None

    @property
    def deliveries_a_read(self) -> float | None:
        """Ticks that a subscriber found in one read: above 1, several shared a write."""
        return self.counted.total.delivered / self.counted.reads if self.counted.reads else None

    @property
    def server_cores(self) -> float:
        """The share of one core that the server used."""
        return self.server_cpu_s / self.counted.wall_s

    @property
    def load_cores(self) -> float:
        """The share of one core that the load generator used."""
        return self.counted.cpu_s / self.counted.wall_s

    def latency(self, window: int = 0, *, group: int = 0) -> Latency | None:
        """Return a group's latency in a window, None if it was not measured."""
        windows = self.counted.groups[group].windows
        return windows[window] if window < len(windows) else None


class Delivery:
    """A load that is open, and a source that publishes to it from `start` on. `published` is what was published."""

    def __init__(self, server: Server, load: Child, opened: dict[str, float], *, stall_s: float) -> None:
        self.server = server
        self.published = 0
        self._load = load
        self._connections = int(opened["open"])
        self._open_s = opened["seconds"]
        self._stall_s = stall_s
        self._cpu_before = 0.0
        self._done: list[int] | None = None
        self._seconds = 0.0

    def start(self) -> None:
        """Let the source publish."""
        self._cpu_before = self.server.cpu_s()
        self.server.source.say({"go": True})

    def watch(
        self, *, within_s: float, others: Sequence[Child] = (), show: Callable[[int], None] | None = None
    ) -> None:
        """Wait until all is published, until one of `others` has something to say, or so long. Raises BenchError if
        the load has given up.
        """
        deadline = time.monotonic() + within_s
        source = self.server.source
        while self._done is None and (left := deadline - time.monotonic()) > 0:
            wait_for_words([source, self._load, *others], within_s=min(left, LOOK_S))
            if self._load.has_spoken():
                raise self._halted(self._load.hear(within_s=STALL_S)["counted"])
            while self._done is None and source.has_spoken():
                self._hear(source)
            if show is not None:
                show(self.published)
            if any(other.has_spoken() for other in others):
                break

    def window(self) -> None:
        """Begin a new window of latencies."""
        self._load.say({"window": True})
        self._ask()

    def finish(self) -> Measured:
        """Stop publishing, if it is not done, and wait until everything has arrived. Raises BenchError if the server
        closed a connection, or the load gave up before all was published.
        """
        source = self.server.source
        complete = self._done is not None
        if not complete:
            source.say({"stop": True})
        while self._done is None:
            self._hear(source, within_s=self._stall_s + DELIVERY_S * self._connections * self.published)
        self._load.say({"finish": self._done})
        self._ask()
        source.say({"finish": True})
        source.hear(within_s=self._stall_s + DELIVERY_S * self._connections * len(self._done))
        deliveries = self._connections * (self.published + len(self._done))
        found = self._load.hear(within_s=2 * self._stall_s + DELIVERY_S * deliveries)["counted"]
        counted = msgspec.convert(found, Counted)
        if not counted.is_whole:
            raise self._halted(found)
        return Measured(
            counted=counted,
            open_s=self._open_s,
            published=self.published,
            published_per_s=max(1, self.published - 1)
            / self._seconds,  # there are so many pauses between them
            server_cpu_s=self.server.cpu_s() - self._cpu_before,
            complete=complete,
        )

    def _hear(self, source: Child, *, within_s: float = STALL_S) -> None:
        message = source.hear(within_s=within_s)
        if "done" in message:
            done: list[int] = message["done"]
            self._done, self._seconds, self.published = done, message["seconds"], sum(done)
        else:
            self.published = message["published"]

    def _ask(self) -> None:
        answer = self._load.hear(within_s=STALL_S)
        if "counted" in answer:
            raise self._halted(answer["counted"])

    def _halted(self, found: dict[str, Any]) -> BenchError:
        counted = msgspec.convert(found, Counted)
        sentences = (
            f"The run came to a halt after {self.published:,} ticks: {counted.total.delivered:,} deliveries arrived, "
            f"and {counted.closed} of {self._connections} connections were closed by the server. "
            f"{counted.close_reason}"
        )
        return BenchError(sentences.strip())


@contextlib.contextmanager
def server_of(
    name: SideName,
    folder: Path,
    ticks: Ticks,
    *,
    sessions: int,
    interval_ms: int = 0,
    waits: bool = True,
) -> Iterator[Server]:
    """Run the server of a side, and what publishes to it."""
    with contextlib.ExitStack() as stack:
        if name == "yardstick":
            server = yardstick_server(folder, ticks, interval_ms=interval_ms, waits=waits)
        else:
            relay = stack.enter_context(own_relay(folder, sessions=sessions))
            server = publishing_to(relay, folder, ticks)
        yield stack.enter_context(server)


@contextlib.contextmanager
def opened(
    server: Server,
    groups: Sequence[GroupOrder],
    ticks: Ticks,
    folder: Path,
    *,
    ticks_each: int,
    pause_s: float = 0.0,
) -> Iterator[Delivery]:
    """Open a load until the block ends.

    `pause_s` is the longest time in which nothing may be due, `ticks_each` about how many ticks a connection gets.
    Raises BenchError if a connection can't be opened.
    """
    stall_s = STALL_S + pause_s
    with Child.run("The load generator", ["relay.bench.load.subscribers"], folder / "load.log") as load:
        load.say(Order(groups=list(groups), ticks=ticks, stall_s=stall_s, ticks_each=ticks_each))
        answer = load.hear(within_s=OPEN_BASE_S + OPEN_EACH_S * sum(group.connections for group in groups))
        yield Delivery(server, load, answer, stall_s=stall_s)


def patience_s(planned_s: float) -> float:
    """Return how long publishing may take that should take `planned_s`."""
    return LATE_FACTOR * planned_s + LATE_S


def deliver(delivery: Delivery, *, within_s: float, total: int, show: Show, unit: str = "ticks") -> Measured:
    """Publish everything, but for no longer than `within_s`, and wait until it has arrived. Raises BenchError if it
    can't be completed.
    """
    show(0, total, unit)
    delivery.start()
    delivery.watch(within_s=within_s, show=lambda done: show(done, total, unit))
    return delivery.finish()


def made_up(channels: Sequence[str], *, rate: float, count: float, **more: Any) -> Ticks:
    """Return the made-up ticks of one run."""
    return Ticks(run=secrets.token_hex(4), channels=list(channels), rate=rate, count=round(count), **more)


def latency_figures(group: int = 0, *, name: str = "latency") -> list[Figure[Measured]]:
    """Return the latency figures of one group of connections."""

    def of(measured: Measured, what: str) -> float | None:
        return getattr(measured.latency(group=group), what, None)

    return [
        Figure(f"{name}_p50_ms", f"{name} p50 ms", lambda m: of(m, "p50_ms"), ".1f", has_ratio=True),
        Figure(f"{name}_p99_ms", f"{name} p99 ms", lambda m: of(m, "p99_ms"), ".1f", has_ratio=True),
    ]


COST: list[Figure[Measured]] = [
    Figure("cpu_us_a_delivery", "CPU µs a delivery", "cpu_us_a_delivery", ".2f", has_ratio=True),
    Figure("deliveries_per_s", "deliveries/s", "deliveries_per_s", has_ratio=True),
]
PACE: list[Figure[Measured]] = [
    Figure("published_per_s", "ticks/s published", "published_per_s", ",.1f"),
    Figure("deliveries_a_read", "deliveries a read", "deliveries_a_read", ".2f"),
    Figure("server_cores", "server CPU, cores", "server_cores", ".2f"),
    Figure("delivered", "delivered", "counted.total.delivered"),
    Figure("conflated", "conflated", "counted.total.conflated"),
    Figure("lost", "lost", "counted.total.lost"),
    Figure("repeated", "repeated", "counted.total.repeated"),
]


class DeliveryBenchmark(Benchmark[Measured]):
    """A benchmark whose side is one delivery: it names ticks, groups of connections, and the pace."""

    interval_ms: int = 0

    @abc.abstractmethod
    def make_ticks(self) -> Ticks:
        """Return the ticks of one run."""

    @abc.abstractmethod
    def groups(self, server: Server) -> list[GroupOrder]:
        """Return the connections to open."""

    @abc.abstractmethod
    def pace(self) -> tuple[float, float]:
        """Return the ticks in a run and how many are due in a second; 0.0: there is no pace."""

    def pause_s(self) -> float:
        """Return the longest time in which no tick is due."""
        rate = self.pace()[1]
        return 3 / rate if rate else 0.0

    def ticks_each(self) -> int:
        """Return about how many ticks one connection gets."""
        return int(self.pace()[0])

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Measured:
        ticks = self.make_ticks()
        total, rate = self.pace()
        with server_of(
            name, folder, ticks, sessions=self.open_files(), interval_ms=self.interval_ms
        ) as server:
            groups = self.groups(server)
            within_s = (
                patience_s(total / rate) if rate else STALL_S + DELIVERY_S * groups[0].connections * total
            )
            with opened(
                server, groups, ticks, folder, ticks_each=self.ticks_each(), pause_s=self.pause_s()
            ) as delivery:
                return deliver(delivery, within_s=within_s, total=int(total), show=show)

    def figures(self) -> Sequence[Figure[Measured]]:
        return [*COST, *latency_figures(), *PACE]

    def is_whole(self, relay: Measured) -> bool:
        return is_whole(relay)

    def side_notes(self, name: SideName, sides: Sequence[Measured]) -> list[str]:
        found = busy_note(name, [one.load_cores for one in sides]) + pace_notes(name, sides, self.pace()[1])
        if late := [one.published for one in sides if not one.complete]:
            found.append(
                f"The {name} was stopped when its time was up; in one run after {min(late):,} ticks. "
                "Its figures are about those."
            )
        if not self.interval_ms and (conflated := sum(one.counted.total.conflated for one in sides)):
            due = sum(one.counted.total.expected for one in sides)
            found.append(
                f"The {name} conflated {conflated:,} of {due:,} deliveries in all runs: a subscriber "
                "whose socket was full got the newest value instead, as channels of mode latest do."
            )
        return found + loss_notes(name, sides)

    def notes(self, runs: Sequence[Run[Measured]]) -> list[str]:
        del runs
        if not self.interval_ms:
            return []
        return [
            f"With an interval of {self.interval_ms} ms a price waits for its end, and only each channel's newest "
            "is sent. The others count as conflated, on both sides."
        ]


def loss_notes(side: str, measured: Sequence[Measured]) -> list[str]:
    """Return a sentence each for what was lost and what came twice."""
    found = []
    if lost := sum(one.counted.total.lost for one in measured):
        found.append(
            f"The {side} LOST {lost:,} deliveries: a last value, or a message of a stream, never came."
        )
    if repeated := sum(one.counted.total.repeated for one in measured):
        found.append(f"The {side} sent {repeated:,} deliveries twice.")
    return found


def is_whole(measured: Measured) -> bool:
    """Tell whether everything was delivered once, except what may be conflated."""
    return not measured.counted.total.lost and not measured.counted.total.repeated


def pace_notes(side: str, measured: Sequence[Measured], rate: float) -> list[str]:
    """Return a sentence if a side did not keep the pace."""
    slowest = min(one.published_per_s for one in measured)
    # less than a second says nothing about a pace
    too_short = all(one.complete and one.published < rate for one in measured)
    if not rate or slowest >= KEPT_PACE * rate or too_short:
        return []
    return [
        f"The {side} kept no pace of {round(rate, 1):g} ticks/s: it took {slowest:.1f} in one run. "
        "Latencies count from when a tick went out, not from when it was due."
    ]
