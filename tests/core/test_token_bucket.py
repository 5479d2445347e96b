"""The token bucket: a burst at once and a rate in the long run, also when the clock jumps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.token_bucket import TokenBucket

pauses = st.lists(st.floats(0, 3, allow_nan=False), max_size=120)


def test_a_burst_and_then_the_rate() -> None:
    """The burst is there at once; the next one has to wait for its turn, and the answer says how long."""
    bucket = TokenBucket.full(rate=10, burst=20, now=100.0)
    assert [bucket.acquire(100.0) for _ in range(20)] == [0.0] * 20
    assert bucket.acquire(100.0) == pytest.approx(0.1)
    assert bucket.acquire(100.05) == pytest.approx(0.05)
    assert bucket.acquire(100.11) == 0.0
    assert bucket.acquire(100.11) > 0


def test_rest_fills_no_more_than_a_burst() -> None:
    """After a night of silence there is one burst, not a night's worth."""
    bucket = TokenBucket.full(rate=10, burst=20, now=0)
    assert [bucket.acquire(86_400) for _ in range(21)].count(0.0) == 20


@given(pauses)
def test_never_more_than_burst_and_rate_allow(waits: list[float]) -> None:
    """Between two moments no more is allowed than a burst plus the rate times the time between them."""
    bucket, now = TokenBucket.full(rate=10, burst=20, now=0), 0.0
    allowed: list[float] = []
    for wait in waits:
        now += wait
        if not bucket.acquire(now):
            allowed.append(now)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= 20 + 10 * (allowed[last] - allowed[first]) + 1e-6


@given(pauses)
def test_the_wait_is_long_enough(waits: list[float]) -> None:
    """After the time that it returned, and a moment more, the next call is allowed."""
    bucket, now = TokenBucket.full(rate=10, burst=3, now=0), 0.0
    for wait in waits:
        now += wait / 10
        if told := bucket.acquire(now):
            now += told + 1e-6
            assert bucket.acquire(now) == 0.0


def test_a_clock_that_is_set_back_charges_nobody() -> None:
    """An hour back must not lock every client out for an hour; the rate goes on from there."""
    bucket = TokenBucket.full(rate=10, burst=20, now=7200.0)
    assert bucket.acquire(7200.0) == 0.0
    assert [bucket.acquire(3600.0) for _ in range(19)] == [0.0] * 19
    assert bucket.acquire(3600.0) == pytest.approx(0.1)
    assert bucket.acquire(3600.2) == 0.0
