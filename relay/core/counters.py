"""Counters of the hub and histograms of durations. They are plain numbers; the metrics read them on request."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What the hub has done since the process started. `deliveries` counts each message once per subscriber."""

    publications: int = 0
    duplicates: int = 0
    deliveries: int = 0
    writes: int = 0
    bytes: int = 0
    conflated: int = 0
    overflows: int = 0


@dataclass(slots=True)
class CompressionCounters:
    """What was compressed since the process started. `saved_bytes` counts each reader of a batch.

    `plain` are the batches that went uncompressed, because their share of the CPU was used up.
    """

    batches: int = 0
    plain: int = 0
    saved_bytes: int = 0
    cpu_s: float = 0.0


BUCKET_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets, in seconds: from less than a turn of the event loop (2 ms) to more than a live price
may take. 50 and 100 ms are bounds because the targets of the fan-out use them."""


def high_bound_s(counts: Sequence[int], *, share: float) -> float | None:
    """Return the bound of a histogram's buckets below which a share of its durations lies; None if it has none.

    Above the last bound it is that bound.
    """
    wanted, reached = share * sum(counts), 0
    for count, bound in zip(counts, (*BUCKET_BOUNDS_S, BUCKET_BOUNDS_S[-1]), strict=True):
        reached += count
        if wanted and reached >= wanted:
            return bound
    return None


class DurationHistogram:
    """Durations, counted in buckets. `add` costs 0.3 µs: call it some hundred times a second, not for each delivery."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKET_BOUNDS_S) + 1)  # the last counts what is above all bounds
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKET_BOUNDS_S, seconds)] += 1
        self.total_s += seconds
