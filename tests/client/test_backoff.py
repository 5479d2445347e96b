"""The waits between attempts."""

from random import Random

from relay.client.backoff import CAP_S, FIRST_S, Backoff


class _Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def test_bounds_double_up_to_the_cap() -> None:
    """The longest possible waits are 0.5, 1, 2, 4, 8, 16 and then always 20 seconds."""
    backoff = Backoff(random=_Highest())
    assert [backoff.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_waits_are_spread_from_zero() -> None:
    """Jitter is full: clients that failed together come back anywhere between at once and the bound."""
    waits = [Backoff(random=Random(seed)).next() for seed in range(200)]
    assert min(waits) < 0.1 * FIRST_S
    assert 0.9 * FIRST_S < max(waits) <= FIRST_S


def test_many_failures_do_not_overflow() -> None:
    """A client that was alone for a week still computes its next wait."""
    backoff = Backoff()
    assert all(0 <= backoff.next() <= CAP_S for _ in range(5000))


def test_the_servers_wish_is_a_lower_bound_and_costs_no_patience() -> None:
    """After Retry-After the wait is that long and a little more, and the next bound is still the first."""
    backoff = Backoff(random=_Highest())
    assert backoff.next(told_s=7) == 7.5
    assert backoff.next() == 0.5


def test_reset_returns_to_the_first_delay() -> None:
    """Something worked: the next failure waits as shortly as the first."""
    backoff = Backoff(random=_Highest())
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() == 0.5
