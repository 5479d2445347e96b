"""How many lines about the same thing the log gets."""

from relay.core.log_limit import EVERY_S, MAX_THINGS, LogLimit


def test_one_line_a_minute_with_the_number_left_out() -> None:
    """The first line is written at once, the next one after a minute, with the number of those between."""
    limit = LogLimit()
    assert limit.admit("a", 0.0) == 0
    assert [limit.admit("a", 1.0 + number) for number in range(5)] == [None] * 5
    assert limit.admit("b", 6.0) == 0
    assert limit.admit("a", EVERY_S) == 5
    assert limit.admit("a", EVERY_S + 1) is None


def test_a_bounded_number_of_things_is_remembered() -> None:
    """A flood of addresses costs no more memory than the bound; the oldest are forgotten."""
    limit = LogLimit()
    for number in range(MAX_THINGS + 1):
        assert limit.admit(number, 0.0) == 0
    assert limit.admit(MAX_THINGS, 1.0) is None
    assert limit.admit(0, 1.0) == 0
