"""`relay bench bandwidth`: what shared compression saves of the bytes of recorded prices, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from relay.bench.benchmarks.benchmark import option
from relay.bench.benchmarks.delivery import COST, PACE, Measured, latency_figures
from relay.bench.benchmarks.replay import Replay
from relay.bench.load.ticks import PRICES
from relay.bench.report import Figure


@dataclass(frozen=True, kw_only=True)
class Bandwidth(Replay):
    """Recorded prices at an interval: how many bytes does a reader get, compressed and plain?

    Parts of the recording are played at once, each with its own symbols. All
    subscribers have all of them, or with --each every one has others.
    """

    NAME = "bandwidth"
    YARDSTICK = ("plain JSON", "the relay without compression, with the same subscribers")

    parts: Annotated[int, option("Parts of the recording that are played at once.", 1, 100)] = 5
    speed: Annotated[float, option("2 plays twice as fast.", 0.01, 1000)] = 1

    def own_member(self) -> str:
        return "compress"

    def figures(self) -> Sequence[Figure[Measured]]:
        def bytes_a_value(side: Measured) -> float:
            return side.counted.total.bytes / max(1, side.counted.total.delivered)

        at_most = None if self.each else 0.33  # sets of their own share nothing
        size = Figure("bytes_a_value", "bytes a value", bytes_a_value, ",.1f", True, at_most)
        return [size, *COST, *latency_figures(), *PACE]

    def _kinds(self) -> list[str]:
        return [PRICES]
