"""The memory adapter of rate limits: the counts of this process, with the sliding windows of the `limits` library."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import floor

from limits import parse
from limits.storage import SlidingWindowCounterSupport, Storage
from limits.strategies import SlidingWindowCounterRateLimiter

MAX_KEYS = 50_000
"""Keys counted at once, some 20 MB. If all are taken, a new key replaces the one whose window began first. An attacker
with that many addresses gains nothing when one of them is forgotten."""

_NO_FIXED_WINDOWS = "These are sliding windows; fixed ones let through twice the limit at once."


class MemoryCounts:
    """See `relay.limits.base.RequestCounts`. `rate` is a text like "30/minute"; `clock` gives seconds."""

    def __init__(
        self, rate: str, *, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self._rate = parse(rate)
        self._before, self._after = self._rate.key_for("\0").split("\0")
        self._amount, self._window_s = self._rate.amount, self._rate.get_expiry()
        self._windows = Windows(clock=clock, max_keys=max_keys)
        self._limiter = SlidingWindowCounterRateLimiter(self._windows)

    def __len__(self) -> int:
        return len(self._windows)

    async def hit(self, key: str) -> float:
        """See `RequestCounts.hit`."""
        # as the library's `hit`, whose own way to this call takes as long as the call
        if self._windows.count(self._key(key), self._amount, self._window_s):
            return 0.0
        reset_in = self._limiter.get_window_stats(self._rate, key).reset_time - time.time()
        return max(1.0, reset_in)

    def _key(self, key: str) -> str:
        """Return the library's name for a key: `RateLimitItem.key_for` in a quarter of its time."""
        return f"{self._before}{key}{self._after}"

    async def give_back(self, key: str) -> None:
        """See `RequestCounts.give_back`."""
        self._windows.give_back(self._key(key), self._window_s)


@dataclass(slots=True)
class _Window:
    start: float
    previous: int = 0
    current: int = 0


class Windows(Storage, SlidingWindowCounterSupport):
    """Counts of one limit, for the library's `SlidingWindowCounterRateLimiter`. For one event loop's thread.

    The library's own `MemoryStorage` walks through all its keys on a thread, as often as every 10 ms while requests
    come, and its moving window never forgets a key. With 100,000 addresses in it, a request cost 140 µs of CPU and
    sometimes 29 ms of waiting. Here a request costs 5 µs, whatever the number of keys.

    The strategy is the sliding window counter: two numbers for a key instead of a list of times. It is exact but for
    the times of the requests in the window before. `clock` gives seconds and never goes back.
    """

    STORAGE_SCHEME = None  # it is not made from a URI

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS) -> None:
        super().__init__()
        self._clock = clock
        self._max_keys = max_keys
        # The windows of one limit have one length, so they end nearly in the order in which they stand here.
        # A window that follows another of its key ends one length later at most.
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    # --- the sliding window

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """See `count`."""
        return self.count(key, limit, expiry, amount)

    def count(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` more if the limit allows it, and tell whether it did. `expiry` is the window's seconds."""
        now = self._clock()
        # A window begins with the key's first request. If all windows began at the full minute, all refused clients
        # would be accepted again at the same moment.
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

    def give_back(self, key: str, expiry: int) -> None:
        """Count one less, in this window or in the one before."""
        window = self._rolled(key, expiry, self._clock())
        if window is None:
            return
        if window.current:
            window.current -= 1
        elif window.previous:
            window.previous -= 1

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
        """Forget up to two keys whose windows are over: each new key does, so that no call walks through all keys."""
        for _ in range(2):
            if not self._windows:
                return
            oldest = next(iter(self._windows.values()))
            if now < oldest.start + 2 * expiry and len(self._windows) < self._max_keys:
                return
            self._windows.popitem(last=False)

    # --- the rest of the interface of a storage

    @property
    def base_exceptions(self) -> type[Exception]:
        """The exceptions of a lost storage. This one can't be lost."""
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
        """Not offered: the library's fixed windows would use it."""
        raise NotImplementedError(_NO_FIXED_WINDOWS)

    def get(self, key: str) -> int:
        """Not offered: the library's fixed windows would use it."""
        raise NotImplementedError(_NO_FIXED_WINDOWS)

    def get_expiry(self, key: str) -> float:
        """Not offered: the library's fixed windows would use it."""
        raise NotImplementedError(_NO_FIXED_WINDOWS)
