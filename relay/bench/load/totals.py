"""What a load counted, as plain figures that travel between processes: by group of connections, and in all."""

from collections.abc import Iterable, Sequence

import msgspec


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """From the making of a tick to its reading, in milliseconds; None without a sample."""

    samples: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived on the connections of one kind.

    `ended` is how many end marks came. Of the deliveries that were `expected` some are missing: `conflated` on
    connections that got every channel's last value all the same, `lost` on the others and on all connections of
    `stream` channels; where only last values are missing those are the lost ones. `repeated` are too many, and
    `disordered` came behind a later one of their channel: looked for where a connection has one channel of a stream.
    `windows` are the latencies, a new window beginning whenever the command said so.
    """

    expected: int
    delivered: int
    ended: int
    conflated: int
    lost: int
    repeated: int
    disordered: int = 0
    windows: list[Latency]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived in all.

    `is_whole` says that all was published and no connection was closed by the server; `close_reason` is a
    sentence about the first that was, if it said why. `stalled`: something was still missing when nothing came
    any more. `seconds` is from the first tick to the last, `wall_s` from the first look to the end, `cpu_s` what
    the load's process used in that time, `peak_per_s` the ticks in the busiest second.
    """

    groups: list[Group]
    is_whole: bool
    closed: int
    close_reason: str
    stalled: bool
    reads: int
    bytes: int
    seconds: float
    peak_per_s: int
    wall_s: float
    cpu_s: float

    @property
    def expected(self) -> int:
        """Deliveries that were due; 0 when the load was never told how many."""
        return sum(group.expected for group in self.groups)

    @property
    def delivered(self) -> int:
        """Ticks that arrived."""
        return sum(group.delivered for group in self.groups)

    @property
    def ended(self) -> int:
        """End marks that arrived."""
        return sum(group.ended for group in self.groups)

    @property
    def conflated(self) -> int:
        """Ticks for which subscribers got a newer value."""
        return sum(group.conflated for group in self.groups)

    @property
    def lost(self) -> int:
        """Ticks or last values that should have come and did not."""
        return sum(group.lost for group in self.groups)

    @property
    def repeated(self) -> int:
        """Ticks that came more than once."""
        return sum(group.repeated for group in self.groups)

    @property
    def disordered(self) -> int:
        """Messages of streams that came behind a later one of their channel."""
        return sum(group.disordered for group in self.groups)

    @property
    def latency(self) -> Latency:
        """The first group's latency in the first window."""
        return self.groups[0].windows[0]


def group_of(
    found: Iterable[tuple[int, int, int, int]],
    *,
    ended: int,
    disordered: int = 0,
    stream: bool,
    windows: list[Latency],
) -> Group:
    """Sum up a group from each connection's ticks that came, those expected, end marks missing, numbers seen twice."""
    expected = delivered = conflated = lost = repeated = 0
    for came, due, without_end, twice in found:
        expected += due
        delivered += came
        missing = max(0, due - came + twice)
        repeated += max(twice, came - due)
        if stream or without_end:
            lost += max(missing, without_end)
        else:
            conflated += missing
    return Group(
        expected=expected,
        delivered=delivered,
        ended=ended,
        conflated=conflated,
        lost=lost,
        repeated=repeated,
        disordered=disordered,
        windows=windows,
    )


def latency_of(nanoseconds: Iterable[int]) -> Latency:
    """Return the quantiles of what was sampled."""
    ordered = sorted(nanoseconds)
    return Latency(
        samples=len(ordered),
        p50_ms=quantile(ordered, 0.5, unit=1e6),
        p99_ms=quantile(ordered, 0.99, unit=1e6),
        max_ms=quantile(ordered, 1.0, unit=1e6),
    )


def quantile(ordered: Sequence[float], share: float, *, unit: float = 1.0) -> float | None:
    """Return a quantile of sorted values, divided by `unit`; None if there are none."""
    return ordered[int((len(ordered) - 1) * share)] / unit if ordered else None
