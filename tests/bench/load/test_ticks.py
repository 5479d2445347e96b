"""The ticks of a benchmark: what is counted is there once, and nowhere else."""

import json
from pathlib import Path

from relay.bench.load.ticks import QUOTE, Tick, Ticks, script_line

TICKS = Ticks(run="0a1b2c3d", channels=["prices.A", "prices.B", "trades.A"], rate=100, count=7)
TICK = Tick(0.0, 0, QUOTE)
TRADE = Tick(0.0, 2, b'{"price":"1"}', 17)


def test_a_tick_has_its_marker_once() -> None:
    """A subscriber's frame is counted once, and so is what is published."""
    assert TICKS.message(0, TICKS.value(TICK), 1).count(TICKS.marker) == 1
    assert TICKS.draft(0, TICKS.value(TICK)).count(TICKS.marker) == 1
    assert TICKS.number_marker not in TICKS.message(0, TICKS.value(TICK), 1)


def test_the_end_mark_is_no_tick() -> None:
    """The value after the last tick has the end marker alone, and names its channel and how many ticks it had."""
    assert TICKS.marker not in TICKS.message(1, TICKS.end_value(1, 7), 2)
    assert TICKS.message(1, TICKS.end_value(1, 7), 2).count(TICKS.end_marker + b"00001.000000007") == 1
    assert TICKS.draft(1, TICKS.end_value(1, 7)).count(TICKS.end_marker + b"00001.000000007") == 1
    assert json.loads(TICKS.draft(1, TICKS.end_value(1, 7)))["channel"] == "prices.B"


def test_a_run_does_not_count_another_ones_ticks() -> None:
    """An old snapshot of the channel, or another program that measures there, changes no figure."""
    other = Ticks(run="ffffffff", channels=TICKS.channels)
    assert TICKS.marker not in other.value(TICK)
    assert TICKS.end_marker not in other.end_value(0, 1)
    assert TICKS.number_marker not in other.value(TRADE)


def test_ticks_are_of_the_size_that_is_told() -> None:
    """A frame has about 150 bytes, and is JSON that names its time where the counter looks for it."""
    message = Ticks(run="0a1b2c3d", channels=["prices.BENCH"]).message(0, TICKS.value(TICK), 250)
    assert 140 <= len(message) <= 170
    tick = json.loads(message)["data"]
    assert TICKS.marker + str(tick["t"]).encode() in message


def test_messages_of_streams_are_numbered() -> None:
    """The number has nine digits after its own mark, and the recorded members stay as they are."""
    message = TICKS.message(2, TICKS.value(TRADE), 1)
    assert TICKS.number_marker + b"000000017" in message
    assert json.loads(message)["data"]["price"] == "1"


def test_ticks_go_to_the_channels_in_turn_at_their_pace() -> None:
    """Due times are those of the rate; flat out all are due at once."""
    due = list(TICKS.due())
    assert [tick.channel for tick in due] == [0, 1, 2, 0, 1, 2, 0]
    assert [round(tick.due_s, 3) for tick in due] == [0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    assert {tick.due_s for tick in Ticks(run="x", channels=["a"], count=3).due()} == {0.0}


def test_ticks_come_in_bursts() -> None:
    """Those that are due within a burst's time are due at its beginning. The pace stays."""
    ticks = Ticks(run="x", channels=["a"], rate=100, count=7, burst_s=0.025)
    assert [round(tick.due_s, 3) for tick in ticks.due()] == [0, 0, 0, 0.025, 0.025, 0.05, 0.05]


def test_a_script_is_played_as_it_was_written(tmp_path: Path) -> None:
    """Times, channels and data come from the file; only messages of streams get a number."""
    path = tmp_path / "script"
    data = b'{"price":"1 2"}'
    path.write_bytes(script_line(0.5, 2, data) + script_line(1.25, 0, QUOTE) + script_line(1.25, 2, data))
    ticks = Ticks(run="0a1b2c3d", channels=TICKS.channels, script=str(path), streams=frozenset([2]))
    assert list(ticks.due()) == [Tick(0.5, 2, data, 0), Tick(1.25, 0, QUOTE), Tick(1.25, 2, data, 1)]
