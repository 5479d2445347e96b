"""The result of one side of a good benchmark run; a test changes single values of it."""

from dataclasses import replace
from typing import Any

import msgspec

from relay.bench.benchmarks.delivery import Measured
from relay.bench.load.subscribers import Counted, Group, Latency

LATENCY = Latency(samples=1000, p50_ms=1.0, p99_ms=2.0)
GROUP = Group(expected=1000, delivered=1000, ended=10, conflated=0, lost=0, repeated=0, windows=[LATENCY] * 4)
COUNTED = Counted(
    groups=[GROUP],
    closed=0,
    close_reason="",
    stalled=False,
    reads=1010,
    seconds=1.0,
    wall_s=2.0,
    cpu_s=0.2,
)
GOOD = Measured(counted=COUNTED, published=100, published_per_s=100.0, server_cpu_s=1.01)


def side(
    cpu_s: float = 1.01,
    *,
    published_per_s: float = 100.0,
    complete: bool = True,
    reads: int = 1010,
    wall_s: float = 2.0,
    **group: Any,
) -> Measured:
    """Return one side that went well but for what is named."""
    changed = msgspec.structs.replace(
        COUNTED, groups=[msgspec.structs.replace(GROUP, **group)], reads=reads, wall_s=wall_s
    )
    return replace(
        GOOD, counted=changed, server_cpu_s=cpu_s, published_per_s=published_per_s, complete=complete
    )
