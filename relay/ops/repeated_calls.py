"""Calls that a monitor or an open page makes every few seconds: recorded once, then counted.

Every operator's call is recorded, but the calls of a scraper every 15 s would be most of the audit log and hide other
records. So the first call of an operator from an address to a path is recorded at once. The next record follows after
ten minutes at the earliest and has the number of calls.
"""

import time
from collections.abc import Callable

PERIOD_S = 600.0
MAX_KEYS = 1000
"""Most combinations of operator, address and path, some 200 KB. Further calls are recorded one by one."""

Key = tuple[str, str, str]


class RepeatedCalls:
    """Decides which calls are recorded. `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[
            Key, tuple[float, int]
        ] = {}  # the time of the last record, and the calls since then

    def count(self, operator: str, address: str, what: str) -> int | None:
        """Count a call. Returns the number of calls for a record, or None if this call is not recorded."""
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
        """Drop keys without a call in the last period, unless they have calls that are not recorded yet."""
        for key, (since, count) in list(self._calls.items()):
            if not count and now - since >= PERIOD_S:
                del self._calls[key]
