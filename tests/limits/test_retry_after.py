"""How long a refused client is told to wait."""

from hypothesis import given
from hypothesis import strategies as st

from relay.limits.retry_after import SPREAD_S, jittered, retry_after


@given(st.floats(0, 1e6, allow_nan=False))
def test_a_wait_is_never_shorter_than_it_must_be(seconds: float) -> None:
    """And at most twice as long, or as the least spread makes it."""
    assert seconds <= jittered(seconds) <= seconds + max(seconds, SPREAD_S)


@given(st.floats(0, 1e6, allow_nan=False))
def test_the_header_has_whole_seconds(seconds: float) -> None:
    """One at least, and none too few (RFC 9110 §10.2.3)."""
    assert int(retry_after(seconds)) >= max(1, seconds)


def test_who_is_refused_together_does_not_come_back_together() -> None:
    """However short the wait is."""
    assert len({retry_after(jittered()) for _ in range(100)}) >= 3
