"""One side of one run in which ticks are delivered to subscribers; and what benchmarks of deliveries have in common.

A load is opened, ticks are published, and all that must arrive is waited for. The server's CPU is counted from "all
connections are open" to "the end marks have arrived everywhere". The end marks are deliveries like the others, so they
count in the price of one, but in no other figure.
"""

import abc
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Benchmark, Show, SideName
from relay.bench.load.processes import LOOK_S, STALL_S, Child, cpu_of, wait_for_words
from relay.bench.load.servers import Server, own_relay, publishing_to, yardstick_server
from relay.bench.load.subscribers import Counted, GroupOrder, Latency, Order
from relay.bench.load.ticks import Ticks
from relay.bench.report import Figure, busy_note

OPEN_BASE_S = 30.0
OPEN_EACH_S = 0.05
"""Bound for opening all connections: a token and a handshake take 2 ms where nothing else runs."""
DELIVERY_S = 100e-6
"""Bound for the time of one delivery, seven times the yardstick's."""
MAX_EACH = 256
"""Channels of one connection, each of which ends with an end mark."""
LATE_FACTOR, LATE_S = 2.0, 10.0
MAX_VALUES_A_WRITE = 100.0  # of a bare loop, however seldom the relay wrote
KEPT_PACE = 0.97
"""Share of the asked rate below which the pace was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one side did. `complete` is False when the publishing was stopped because it was late."""

    counted: Counted
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

    @property
    def is_whole(self) -> bool:
        """Everything was delivered once, except what may be conflated."""
        return not self.counted.total.lost and not self.counted.total.repeated

    def latency(self, window: int = 0, *, group: int = 0) -> Latency | None:
        """Return a group's latency in a window, None if it was not measured."""
        windows = self.counted.groups[group].windows
        return windows[window] if window < len(windows) else None

    def p99_ms(self, window: int = 0) -> float | None:
        """Return the p99 of the first group's latency in a window, None if it was not measured."""
        return getattr(self.latency(window), "p99_ms", None)


class Delivery:
    """A load that is open, and a source that publishes to it from `start` on. `published` is what was published."""

    def __init__(self, server: Server, load: Child, *, stall_s: float, connections: int) -> None:
        self.server = server
        self.published = 0
        self._load = load
        self._stall_s = stall_s
        self.connections = connections
        self._cpu_before = 0.0
        self._seconds: float | None = None  # that the publishing took, when it has ended

    def start(self) -> None:
        """Let the source publish."""
        self._cpu_before = cpu_of(self.server.pid)
        self.server.source.say({"go": True})

    def watch(
        self, *, within_s: float, others: Sequence[Child] = (), show: Callable[[int], None] | None = None
    ) -> None:
        """Wait until all is published, until one of `others` has something to say, or so long. Raises BenchError if
        the load has given up.
        """
        deadline = time.monotonic() + within_s
        source = self.server.source
        while self._seconds is None and (left := deadline - time.monotonic()) > 0:
            wait_for_words([source, self._load, *others], within_s=min(left, LOOK_S))
            # asked first: the load ends after the source has said that it is done
            load_ended = self._load.has_spoken()
            while self._seconds is None and source.has_spoken():
                self._hear(within_s=STALL_S)
            if load_ended and self._seconds is None:
                raise self._halted(self._counted(within_s=STALL_S))
            if show is not None:
                show(self.published)
            if any(other.has_spoken() for other in others):
                break

    def window(self) -> None:
        """Begin a new window of latencies."""
        self._load.say({"window": True})
        if "counted" in (answer := self._load.hear(within_s=STALL_S)):
            raise self._halted(msgspec.convert(answer["counted"], Counted))

    def finish(self) -> Measured:
        """Stop publishing, if it is not done, and wait until everything has arrived. Raises BenchError if the server
        closed a connection, or the load gave up before all was published.
        """
        source = self.server.source
        complete = self._seconds is not None
        if not complete:
            source.say({"stop": True})
        while self._seconds is None:
            self._hear(within_s=self._bound_s(self.published))
        source.hear(within_s=self._bound_s(1))  # the end marks are out
        counted = self._counted(within_s=self._bound_s(self.published))
        if counted.closed:
            raise self._halted(counted)
        return Measured(
            counted=counted,
            published=self.published,
            # there are so many pauses between them
            published_per_s=max(1, self.published - 1) / self._seconds,
            server_cpu_s=cpu_of(self.server.pid) - self._cpu_before,
            complete=complete,
        )

    def _bound_s(self, ticks: int) -> float:
        """Return how long the deliveries of so many ticks, and of all end marks, may take."""
        return 2 * self._stall_s + DELIVERY_S * self.connections * (ticks + MAX_EACH)

    def _hear(self, *, within_s: float) -> None:
        message = self.server.source.hear(within_s=within_s)
        self._seconds = message.get("seconds")
        self.published = message["published"]

    def _counted(self, *, within_s: float) -> Counted:
        return msgspec.convert(self._load.hear(within_s=within_s)["counted"], Counted)

    def _halted(self, counted: Counted) -> BenchError:
        sentences = (
            f"The run came to a halt after {self.published:,} ticks: {counted.total.delivered:,} deliveries arrived, "
            f"and {counted.closed} of {self.connections} connections were closed by the server. "
            f"{counted.close_reason}"
        )
        return BenchError(sentences.strip())


@contextlib.contextmanager
def server_of(
    name: SideName, folder: Path, ticks: Ticks, *, sessions: int, **yardstick: Any
) -> Iterator[Server]:
    """Run the server of a side, and what publishes to it."""
    if name == "yardstick":
        with yardstick_server(folder, ticks, **yardstick) as server:
            yield server
    else:
        with own_relay(folder, sessions=sessions) as relay, publishing_to(relay, folder, ticks) as server:
            yield server


@contextlib.contextmanager
def opened(server: Server, groups: Sequence[GroupOrder], ticks: Ticks, folder: Path) -> Iterator[Delivery]:
    """Open a load until the block ends. Raises BenchError if a connection can't be opened."""
    stall_s, connections = STALL_S + ticks.pause_s, sum(group.connections for group in groups)
    order = Order(groups=list(groups), ticks=ticks, stall_s=stall_s)
    with Child.run("The load generator", folder, "relay.bench.load.subscribers", order=order) as load:
        load.hear(within_s=open_bound_s(connections))
        yield Delivery(server, load, stall_s=stall_s, connections=connections)


def open_bound_s(connections: int) -> float:
    """Return how long opening so many connections may take."""
    return OPEN_BASE_S + OPEN_EACH_S * connections


def deliver(delivery: Delivery, ticks: Ticks, show: Show, *, within_s: float | None = None) -> Measured:
    """Publish everything, but for no longer than `within_s`, and wait until it has arrived. Raises BenchError if it
    can't be completed.

    By default publishing may take twice the time that it should, and ten seconds more.
    """
    if within_s is None:
        unpaced_s = DELIVERY_S * delivery.connections * ticks.count
        within_s = LATE_S + (LATE_FACTOR * ticks.count / ticks.rate if ticks.rate else unpaced_s)
    show(0, ticks.count, "ticks")
    delivery.start()
    delivery.watch(within_s=within_s, show=lambda done: show(done, ticks.count, "ticks"))
    return delivery.finish()


def made_up(channels: Sequence[str], *, rate: float, count: float, **more: Any) -> Ticks:
    """Return the made-up ticks of one run."""
    pause_s = 3 / rate if rate else 0.0
    return Ticks(
        run=secrets.token_hex(4),
        channels=list(channels),
        rate=rate,
        count=round(count),
        pause_s=pause_s,
        **more,
    )


def latency_figures(
    group: int = 0, *, name: str = "latency", p99_at_most: float | None = None
) -> list[Figure[Measured]]:
    """Return the latency figures of one group of connections. `p99_at_most` is the aim for the p99's ratio."""

    def of(measured: Measured, what: str) -> float | None:
        return getattr(measured.latency(group=group), what, None)

    return [
        Figure(f"{name}_p50_ms", f"{name} p50 ms", lambda m: of(m, "p50_ms"), ".1f", True),
        Figure(f"{name}_p99_ms", f"{name} p99 ms", lambda m: of(m, "p99_ms"), ".1f", True, p99_at_most),
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

    P99_AT_MOST: ClassVar[float | None] = None  # times the yardstick's
    values_a_read: list[float] | None = None  # of each relay, if a `BareLoop` is the yardstick

    subscribers: int
    interval_ms: int = 0

    @abc.abstractmethod
    def make_ticks(self) -> Ticks:
        """Return the ticks of one run."""

    @abc.abstractmethod
    def groups(self, server: Server) -> list[GroupOrder]:
        """Return the connections to open."""

    def own_member(self) -> str:
        """Return the member of the targets that only the relay's side has, if the yardstick is a relay too."""
        return ""

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Measured:
        ticks, sessions, member = self.make_ticks(), self.subscribers, self.own_member()
        server_name, change = "relay" if member else name, msgspec.structs.replace
        with server_of(
            server_name,
            folder,
            ticks,
            sessions=sessions,
            interval_ms=self.interval_ms,
            values_a_write=min(self.values_a_read[-1], MAX_VALUES_A_WRITE) if self.values_a_read else 0.0,
        ) as server:
            changes = {member: True} if member and name == "relay" else {}
            groups = [change(one, target=change(one.target, **changes)) for one in self.groups(server)]
            with opened(server, groups, ticks, folder) as delivery:
                side = deliver(delivery, ticks, show)
        if name == "relay" and self.values_a_read is not None:
            self.values_a_read.append(side.deliveries_a_read or 1.0)
        return side

    def figures(self) -> Sequence[Figure[Measured]]:
        return [*COST, *latency_figures(p99_at_most=self.P99_AT_MOST), *PACE]

    def is_whole(self, relay: Measured) -> bool:
        return relay.is_whole

    def side_notes(self, name: SideName, sides: Sequence[Measured]) -> list[str]:
        found = busy_note(name, [one.load_cores for one in sides]) + pace_notes(
            name, sides, self.make_ticks().rate
        )
        if late := [one.published for one in sides if not one.complete]:
            found.append(
                f"The {name} was stopped when its time was up; in one run after {min(late):,} ticks. "
                "Its figures are about those."
            )
        return found


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
