"""The wait before another attempt: exponential back-off with full jitter.

Ten thousand clients that lost one relay must not come back at the same moment. So each wait is random, from zero to a
bound that doubles (AWS Architecture Blog, "Exponential Backoff and Jitter": of the variants that spread the calls, full
jitter makes the fewest).
"""

from random import Random, SystemRandom

FIRST_S = 0.5
CAP_S = 20.0
"""The protocol's bounds: a restart is hardly noticed, and an overloaded relay has time to recover."""

MAX_WAIT_S = 300.0
"""Longest wait that a server may ask for. A wrong number must not stop a client for a day."""


def bounded_s(seconds: float) -> float:
    """Return a number of seconds from a server within 0 and `MAX_WAIT_S`; 0 for NaN."""
    return min(seconds, MAX_WAIT_S) if seconds > 0 else 0.0


def bounded_ms(milliseconds: int) -> float:
    """Return a server's number of milliseconds, of any size, in seconds within 0 and `MAX_WAIT_S`."""
    return min(max(milliseconds, 0), int(MAX_WAIT_S * 1000)) / 1000


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
        """Return the next wait in seconds. If the server asked for `told_s`, it is that (bounded) and some jitter."""
        if told_s is not None:
            return bounded_s(told_s) + self._random.uniform(0, self._first_s)
        bound = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._random.uniform(0, bound)

    def reset(self) -> None:
        """Start from the first wait again, after a success."""
        self._failures = 0
