"""How long to wait before another attempt: full jitter.

Ten thousand clients that lost one relay must not come back in one moment, again and again: so the wait is
drawn evenly from zero up to a bound that doubles (AWS Architecture Blog, "Exponential Backoff and Jitter":
full jitter makes the fewest calls of the variants that spread them).
"""

from random import Random, SystemRandom

FIRST_S = 0.5
CAP_S = 20.0
"""The protocol's bounds: a restart goes nearly unnoticed, and a relay in need is left time to recover."""


class Backoff:
    """The waits of one series of attempts, in seconds."""

    def __init__(
        self, *, first_s: float = FIRST_S, cap_s: float = CAP_S, random: Random | None = None
    ) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._random = random or SystemRandom()
        self._failures = 0

    def next(self, *, told_s: float | None = None) -> float:
        """Return the next wait. `told_s` is what the server asked for: kept, with jitter behind it."""
        if told_s is not None:
            return told_s + self._random.uniform(0, self._first_s)
        bound = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._random.uniform(0, bound)

    def reset(self) -> None:
        """Start from the first wait again, after something worked."""
        self._failures = 0
