"""By how much this machine's clock and the engine's differ."""

import time
from collections import deque
from collections.abc import Callable

_SAMPLES = 5
"""The best of so many measurements counts: the one whose answer came fastest. A busy loop makes others too long."""


class ClockOffset:
    """The engine's time minus the time of `clock` (Unix seconds). `sample` it around a `TIME` command."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)  # seconds of the answer, offset

    def now(self) -> float:
        """Return this machine's time, for `sample`."""
        return self._clock()

    def sample(self, sent_at: float, engine_at: float) -> None:
        """Record that the engine's time was `engine_at`, asked for at `sent_at`. The answer has just come."""
        now = self._clock()
        # The engine read its clock at some moment in between, so half of the time is how far this can be wrong.
        self._samples.append((abs(now - sent_at), engine_at - (sent_at + now) / 2))

    @property
    def seconds(self) -> float:
        """How far the engine is ahead, 0.0 while nothing was measured."""
        return min(self._samples)[1] if self._samples else 0.0
