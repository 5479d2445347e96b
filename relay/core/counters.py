"""What the hub and its turns count: plain numbers, which metrics read when they are asked for."""

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What the hub has done since it was made. Deliveries are messages times subscribers."""

    publications: int = 0
    duplicates: int = 0
    deliveries: int = 0
    writes: int = 0
    bytes: int = 0
    conflated: int = 0
    overflows: int = 0


BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets, in seconds: from less than a turn of the loop (2 ms) to more than anybody calls live.
50 and 100 ms, which the fan-out's targets are set at, are bounds, so that both can be asked for exactly."""


class Times:
    """Durations, counted by size. To add one costs 0.3 µs: a few hundred times a second, never a delivery each."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)  # the last is beyond all bounds
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds
