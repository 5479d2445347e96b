"""How long a refused client is told to wait."""

from hypothesis import given
from hypothesis import strategies as st

from relay.limits.retry_after import SPREAD_S, jittered, retry_after


@given(st.floats(0, 1e6, allow_nan=False))
def test_a_jittered_wait_is_never_too_short(seconds: float) -> None:
    """It is at most twice as long as it must be, or `SPREAD_S` longer."""
    assert seconds <= jittered(seconds) <= seconds + max(seconds, SPREAD_S)


@given(st.floats(0, 1e6, allow_nan=False))
def test_the_header_has_whole_seconds(seconds: float) -> None:
    """The header is at least 1, and rounded up (RFC 9110 §10.2.3)."""
    assert int(retry_after(seconds)) >= max(1, seconds)


def test_clients_that_were_refused_together_wait_for_different_times() -> None:
    """Even the shortest wait is spread."""
    assert len({retry_after(jittered()) for _ in range(100)}) >= 3
