"""The memory adapter of rate limits: bounded, however many keys come, and without a thread."""

import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse
from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from relay.limits.memory import MAX_KEYS, MemoryCounts, Windows


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 20), st.floats(0, 200, allow_nan=False))
def test_a_request_after_the_wait_is_allowed(amount: int, pause: float) -> None:
    """After the time that the library computes from the counts, the next request is allowed."""
    clock = Clock()
    windows = Windows(clock=clock)
    limiter = SlidingWindowCounterRateLimiter(windows)
    limit = parse(f"{amount}/minute")
    while limiter.hit(limit, "key"):
        pass
    clock.now += pause
    while limiter.hit(limit, "key"):
        pass
    previous, previous_for, current, current_for = windows.get_sliding_window(limit.key_for("key"), 60)
    waits = [60 / previous if previous else 60.0, previous_for] if current else [60.0]
    clock.now += max(waits) + 0.001
    assert limiter.hit(limit, "key")
    assert current_for >= previous_for


@given(
    st.sampled_from(["1/second", "3/minute", "7/2 minutes", "20/hour"]),
    st.lists(st.tuples(st.sampled_from(["a", "a/3", "2001:db8::/64", ""]), st.floats(0, 90))),
)
async def test_requests_are_counted_as_the_library_counts_them(
    rate: str, requests: list[tuple[str, float]]
) -> None:
    """The library's limiter, on windows of its own, gives the same verdict on each request."""
    clock = Clock()
    counts = MemoryCounts(rate, clock=clock)
    judge = SlidingWindowCounterRateLimiter(Windows(clock=clock))
    for key, pause in requests:
        clock.now += pause
        assert (await counts.hit(key) == 0.0) is judge.hit(parse(rate), key)


def test_a_flood_of_keys_takes_bounded_memory() -> None:
    """100,000 keys in one window take the memory of `MAX_KEYS`, and free it when their windows are over."""
    clock = Clock()
    windows = Windows(clock=clock)
    limiter = SlidingWindowCounterRateLimiter(windows)
    limit = parse("600/minute")
    threads = threading.active_count()
    tracemalloc.start()
    try:
        for number in range(100_000):
            assert limiter.hit(limit, f"2001:db8:{number:x}::/64")
        assert len(windows) == MAX_KEYS
        first, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            limiter.hit(limit, f"2001:db9:{number:x}::/64")
        second, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first < 30_000_000
    assert second < first * 1.05
    clock.now += 121
    for number in range(MAX_KEYS // 2 + 1):
        limiter.hit(limit, f"later {number}")
    assert len(windows) == MAX_KEYS // 2 + 1
    assert threading.active_count() == threads, "no thread walks through them"


def test_a_replaced_key_loses_its_count_and_no_other_does() -> None:
    """A new key replaces the one whose window began first; the other keys keep their counts."""
    limiter = SlidingWindowCounterRateLimiter(Windows(max_keys=2))
    limit = parse("1/hour")
    for key in ("first", "second", "third"):
        assert limiter.hit(limit, key)
    assert not limiter.hit(limit, "third")
    assert not limiter.hit(limit, "second")
    assert limiter.hit(limit, "first")


def test_keys_can_be_forgotten_on_purpose() -> None:
    """`clear` forgets one key, `reset` all."""
    windows = Windows()
    limiter = SlidingWindowCounterRateLimiter(windows)
    limit = parse("1/hour")
    for key in ("one", "two", "three"):
        assert limiter.hit(limit, key)
    limiter.clear(limit, "one")
    windows.clear(limit.key_for("two"))
    assert len(windows) == 1
    assert windows.check()
    assert windows.reset() == 1
    assert limiter.get_window_stats(limit, "three").remaining == 1


def test_fixed_windows_are_refused() -> None:
    """The library's fixed windows would allow twice the limit at once; they can't be used by mistake."""
    fixed = FixedWindowRateLimiter(Windows())
    with pytest.raises(NotImplementedError):
        fixed.hit(parse("1/minute"), "key")
    with pytest.raises(NotImplementedError):
        fixed.get_window_stats(parse("1/minute"), "key")
    with pytest.raises(NotImplementedError):
        Windows().get_expiry("key")
