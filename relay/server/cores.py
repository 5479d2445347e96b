"""How many cores this process may use."""

import os
from contextlib import suppress
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The quota of a container (cgroup v2): microseconds of CPU in a period, or "max"."""


def usable_cores(quota: Path = _QUOTA) -> float:
    """Return the cores that the affinity and the quota of this process leave it."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        used, _, period = quota.read_text().partition(" ")
        cores = min(cores, int(used) / int(period))
    return cores
