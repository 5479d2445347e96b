"""When the engine last answered one of this node's readers, and what follows from a silence."""

import time
from collections.abc import Callable

GAP_S = 1.0
"""Seconds without an answer after which the engine counts as silent. A reader hears of it twice a second."""
STEADY_S = 2.0
"""Seconds of answers without a gap, after which an engine that was silent for long is relied on again."""


class Pulse:
    """The answers of the engine to one reader. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._steady_since = self._at
        self._longest_gap = 0.0  # before `_steady_since`, in the same disturbance

    def beat(self) -> None:
        """Record an answer."""
        now = self._clock()
        gap = now - self._at
        if gap > GAP_S:
            is_same = self._at - self._steady_since < STEADY_S
            self._longest_gap = max(gap, self._longest_gap) if is_same else gap
            self._steady_since = now
        self._at = now

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return self._clock() - self._at

    def is_reliable(self, *, after_s: float) -> bool:
        """Tell whether answers come: none is missing for `after_s`, and a longer silence is over for `STEADY_S`."""
        now = self._clock()
        if now - self._at > after_s:
            return False
        return self._longest_gap <= after_s or now - self._steady_since >= STEADY_S
