"""Calls that a monitor or an open page makes every few seconds: recorded once, then counted.

Who looks at other people's connections is on record, but a scraper that calls every 15 s would be most of the
log, and a log full of that hides what matters. So the first call of an operator from an address to a path is recorded
at once, and the next record comes ten minutes later at the earliest and says how many calls there were.
"""

import time
from collections.abc import Callable

PERIOD_S = 600.0
MAX_KEYS = 1000
"""Operators, addresses and paths told apart, some 200 KB. Beyond it each call is recorded, which loses nothing."""

Key = tuple[str, str, str]


class Repeats:
    """Which calls are recorded. `clock` counts seconds and never goes back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[Key, tuple[float, int]] = {}  # when it was recorded last, and calls since

    def take(self, operator: str, address: str, what: str) -> int | None:
        """Count a call. Returns how many calls its record stands for, or None if it gets none."""
        key, now = (operator, address, what), self._clock()
        since, count = self._calls.get(key, (-PERIOD_S, 0))
        if now - since < PERIOD_S:
            self._calls[key] = since, count + 1
            return None
        if key not in self._calls and len(self._calls) >= MAX_KEYS:
            self._forget(now)
        if key in self._calls or len(self._calls) < MAX_KEYS:
            self._calls[key] = now, 0
        return count + 1

    def _forget(self, now: float) -> None:
        """Forget who has not called for a period and has no calls that a record still has to tell of."""
        for key, (since, count) in list(self._calls.items()):
            if not count and now - since >= PERIOD_S:
                del self._calls[key]
