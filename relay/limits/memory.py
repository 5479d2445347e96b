"""Where the counts of the `limits` library are kept: in this process, bounded, and without a thread.

The library's own `MemoryStorage` walks through all its keys on a thread, as often as every 10 ms while requests
come, and its moving window keeps every key for ever. With 100,000 addresses in it a request cost 140 µs of CPU
and now and then 29 ms of waiting; here it is 5 µs, whatever the number. The strategy is the library's sliding
window counter: two numbers a key instead of a list of times, exact but for how requests were spread over the
window before. Windows begin with a key's first request, and not at the full minute, because otherwise
everybody who was refused would be let in again in the same moment.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import floor

from limits.storage.base import SlidingWindowCounterSupport, Storage

MAX_KEYS = 50_000
"""Keys counted at once, some 20 MB. Who comes when all are taken has the place of the one whose window began first;
whoever commands that many addresses gains nothing by being forgotten."""


@dataclass(slots=True)
class _Window:
    start: float
    previous: int = 0
    current: int = 0


class Windows(Storage, SlidingWindowCounterSupport):
    """Counts for one limit, for the library's `SlidingWindowCounterRateLimiter`. For one event loop's thread.

    One limit, because windows of one length are over nearly in the order in which they stand here (a window that
    follows another is late by one length at most), so that each new key forgets up to two that are over, and
    nobody has to look through all of them. `clock` gives seconds and never goes back.
    """

    STORAGE_SCHEME = None  # it is made here and not from a URI

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS) -> None:
        super().__init__()
        self._clock = clock
        self._max_keys = max_keys
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    # what the sliding window needs

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` more if the limit allows it, and tell whether it did. `expiry` is the window's seconds."""
        now = self._clock()
        window = self._rolled(key, expiry, now) or _Window(now)
        weight = window.previous * (window.start + expiry - now) / expiry + window.current
        if floor(weight) + amount > limit:
            return False
        if window.current == 0 and key not in self._windows:
            self._forget(expiry, now)
            self._windows[key] = window
        window.current += amount
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the count of the window before and how long it still weighs, and the same of this window."""
        now = self._clock()
        window = self._rolled(key, expiry, now)
        if window is None:
            return 0, 0.0, 0, 0.0
        ends_in = window.start + expiry - now
        return window.previous, ends_in, window.current, ends_in + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002  # the library's signature
        """Forget a key."""
        self._windows.pop(key, None)

    def _rolled(self, key: str, expiry: int, now: float) -> _Window | None:
        """Return the window in which a key is now; None if it has none that still counts."""
        window = self._windows.get(key)
        if window is None or now < window.start + expiry:
            return window
        del self._windows[key]
        if now >= window.start + 2 * expiry:
            return None
        window = self._windows[key] = _Window(window.start + expiry, previous=window.current)
        return window

    def _forget(self, expiry: int, now: float) -> None:
        for _ in range(2):
            if not self._windows:
                return
            oldest = next(iter(self._windows.values()))
            if now < oldest.start + 2 * expiry and len(self._windows) < self._max_keys:
                return
            self._windows.popitem(last=False)

    # what every storage has

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a lost storage would raise; this one can't be lost."""
        return OSError

    def check(self) -> bool:
        """Tell that it works."""
        return True

    def reset(self) -> int:
        """Forget everything; returns how many keys that were."""
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget a key."""
        self._windows.pop(key, None)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """See `get`."""
        raise NotImplementedError(
            "These are sliding windows; fixed ones let through twice the limit at once."
        )

    def get(self, key: str) -> int:
        """Not offered: the library's fixed windows would use it."""
        raise NotImplementedError(
            "These are sliding windows; fixed ones let through twice the limit at once."
        )

    def get_expiry(self, key: str) -> float:
        """See `get`."""
        raise NotImplementedError(
            "These are sliding windows; fixed ones let through twice the limit at once."
        )
