"""The least time that a wall clock has shown lately. Pure: no clock is read here.

A wall clock can be wrong for a moment: a virtual machine wakes up, or somebody sets it. Nothing may be deleted because
of one reading of it. So what ends at a time of the wall clock is deleted only when the clock has been past that time in
every reading of some period, which is measured on a clock that nobody can set. See "Clocks" in `relay/core/README.md`.
"""

import math
from collections import deque

STEPS = 60
"""Readings that are kept of one window. Those closer together are kept as one, the least of them."""


class ClockFloor:
    """The least reading of the last `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._step_s = window_s / STEPS
        self._readings: deque[tuple[float, float]] = deque()

    def read(self, wall: float, steady: float) -> float:
        """Add a reading, and return the least one of the window.

        `wall` is in Unix seconds and `steady` in seconds of a clock that never goes back. The last reading before the
        window counts too. The answer is minus infinity until the readings reach back over the whole window.
        """
        readings = self._readings
        if readings and steady - readings[-1][0] < self._step_s:
            readings[-1] = (readings[-1][0], min(readings[-1][1], wall))
        else:
            readings.append((steady, wall))
        begin = steady - self._window_s
        while len(readings) > 1 and readings[1][0] <= begin:
            readings.popleft()
        return min(wall for _, wall in readings) if readings[0][0] <= begin else -math.inf
