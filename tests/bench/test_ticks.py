"""The ticks of a benchmark: what is counted is there once, and nowhere else."""

import json

from relay.bench.ticks import Ticks

TICKS = Ticks(run="0a1b2c3d", channel="prices.BENCH")


def test_a_tick_has_its_marker_once() -> None:
    """A subscriber's frame is counted once, and so is what is published."""
    assert TICKS.message(1).count(TICKS.marker) == 1
    assert TICKS.draft().count(TICKS.marker) == 1


def test_the_end_mark_is_no_tick() -> None:
    """The value behind the last tick has the end marker alone."""
    assert TICKS.marker not in TICKS.end_message(2)
    assert TICKS.end_message(2).count(TICKS.end_marker) == 1
    assert TICKS.end_draft().count(TICKS.end_marker) == 1


def test_a_run_does_not_count_another_ones_ticks() -> None:
    """An old snapshot of the channel, or another program that measures there, changes no figure."""
    other = Ticks(run="ffffffff", channel="prices.BENCH")
    assert TICKS.marker not in other.message(1)
    assert TICKS.end_marker not in other.end_message(1)


def test_ticks_are_of_the_size_that_is_told() -> None:
    """A frame has about 150 bytes, and is JSON that names its time where the counter looks for it."""
    message = TICKS.message(250)
    assert 140 <= len(message) <= 170
    tick = json.loads(message)["data"]
    assert TICKS.marker + str(tick["t"]).encode() in message
