"""When the engine last answered one of this node's readers, and what follows from a silence."""

import time
from collections.abc import Callable, Sequence

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
        self.fault = ""
        """Why this reader can't use what the engine answers, "" if it can."""
        self.why = ""
        """What the last attempt to get an answer met, "" if it came."""
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
        self.fault = self.why = ""

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


class Pulses:
    """The answers to the readers of all shards, as one: the engine counts as silent while half of them get none.

    Each node of a cluster sees the same masters. One that is away must not make all nodes send their clients elsewhere.
    """

    def __init__(self, pulses: Sequence[Pulse]) -> None:
        self._pulses = pulses

    @property
    def fault(self) -> str:
        """Why a reader can't use what the engine answers, "" if all can."""
        return next((pulse.fault for pulse in self._pulses if pulse.fault), "")

    @property
    def why(self) -> str:
        """What a reader met that got no answer, "" if all had one."""
        return next((pulse.why for pulse in self._pulses if pulse.why), "")

    @property
    def silent_s(self) -> float:
        """Seconds since more than half of the readers had an answer."""
        return sorted(pulse.silent_s for pulse in self._pulses)[len(self._pulses) // 2]

    def is_reliable(self, *, after_s: float) -> bool:
        """Tell it of more than half of the readers: see `Pulse.is_reliable`."""
        return 2 * sum(pulse.is_reliable(after_s=after_s) for pulse in self._pulses) > len(self._pulses)
