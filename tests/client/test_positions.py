"""Which values are new, and where a stream has lost something."""

import json
from typing import Any

import pytest

from relay.client import Gap, Position
from relay.client.frames import Acknowledged, Rejected, Snapshot, Subscribed, Update, parse_server_frame
from relay.client.positions import Arrival, Positions
from relay.core.errors import ConfigurationError
from tests.support.scripted_servers import value

NEW, REPEAT, HELD, JUMP = Arrival.NEW, Arrival.REPEAT, Arrival.HELD, Arrival.JUMP


def _frame(kind: str, seq: int, **members: Any) -> Snapshot | Update:
    frame = parse_server_frame(json.dumps(value(kind, seq, **members)))
    assert isinstance(frame, Snapshot | Update)
    return frame


def _ack(channel: str = "prices.A", **members: Any) -> Subscribed:
    return Subscribed(channels=(Acknowledged(channel=channel, **members),))


def _stream(seq: int, epoch: str = "e1") -> Positions:
    """Return the positions of a stream that has come so far."""
    positions = Positions()
    positions.acknowledge(_ack(mode="stream", epoch=epoch, seq=seq), ())
    assert positions.classify(_frame("snapshot", seq, epoch=epoch)) is NEW
    return positions


def test_seq_must_grow_within_an_epoch() -> None:
    """The same or a smaller seq is a repeat; on a latest channel a jump is fine, for each value is whole."""
    positions = Positions()
    got = [(s, positions.classify(_frame("update", s))) for s in (1, 2, 2, 1, 9, 8, 10)]
    assert [s for s, arrival in got if arrival is NEW] == [1, 2, 9, 10]
    assert positions.resumable() == {}


def test_channels_count_for_themselves() -> None:
    """A high seq of one channel says nothing about another."""
    positions = Positions()
    assert positions.classify(_frame("update", 100)) is NEW
    assert positions.classify(_frame("update", 1, channel="prices.B")) is NEW


def test_a_repeated_snapshot_is_a_duplicate() -> None:
    """After a reconnect the same value comes again as a snapshot, and is not handed out twice."""
    positions = Positions()
    got = [positions.classify(_frame(*frame)) for frame in (("snapshot", 5), ("update", 6), ("snapshot", 6))]
    assert got == [NEW, NEW, REPEAT]
    assert positions.classify(_frame("snapshot", 7)) is NEW


def test_a_new_epoch_counts_from_one() -> None:
    """After a restart the relay counts from 1 again: the first snapshot is new, with any seq."""
    positions = Positions()
    assert positions.classify(_frame("snapshot", 500)) is NEW
    assert positions.classify(_frame("snapshot", 1, epoch="e2")) is NEW
    assert positions.classify(_frame("update", 2)) is NEW
    assert positions.classify(_frame("update", 2)) is REPEAT


def test_an_ack_announces_the_epoch_but_not_the_value() -> None:
    """The ack comes before its snapshot with the same seq, which must not be taken for a repeat."""
    positions = Positions()
    positions.acknowledge(_ack(epoch="e1", seq=5), ())
    assert positions.classify(_frame("snapshot", 5)) is NEW
    positions.acknowledge(_ack(epoch="e1", seq=5), ())
    assert positions.classify(_frame("snapshot", 5)) is REPEAT
    positions.acknowledge(_ack(epoch="e2", seq=0), ())
    assert positions.classify(_frame("update", 1)) is NEW


def test_forgotten_channels_begin_again() -> None:
    """Unsubscribed and subscribed again, a channel's snapshot is handed out again."""
    positions = Positions()
    assert positions.classify(_frame("snapshot", 5)) is NEW
    positions.forget(lambda channel: channel == "prices.B")
    assert positions.classify(_frame("snapshot", 5)) is REPEAT
    positions.forget(lambda channel: channel == "prices.A")
    assert positions.classify(_frame("snapshot", 5)) is NEW


def test_a_stream_that_jumps_is_held_until_it_is_resumed() -> None:
    """What comes behind a gap waits until what is missing came; then all of it is new once, in order."""
    positions = _stream(5)
    assert positions.classify(_frame("update", 6)) is NEW
    assert positions.classify(_frame("update", 9)) is JUMP
    assert positions.resumable() == {"prices.A": ("e1", 6)}
    positions.hold(["prices.A"])
    assert positions.classify(_frame("update", 10)) is HELD
    ack = _ack(mode="stream", epoch="e1", seq=10, recovered=True)
    assert positions.acknowledge(ack, ["prices.A"]) == []
    assert [positions.classify(_frame("update", seq)) for seq in (7, 8, 9, 10)] == [NEW] * 4


def test_a_failed_resumption_is_a_gap() -> None:
    """The relay does not have all messages: one gap after the last received one, and then the next value."""
    positions = _stream(5)
    positions.hold(["prices.A"])
    gaps = positions.acknowledge(_ack(mode="stream", epoch="e1", seq=50), ["prices.A"])
    assert gaps == [Gap(channel="prices.A", epoch="e1", seq=5)]
    assert positions.resumable() == {}
    assert positions.classify(_frame("snapshot", 52)) is NEW
    assert positions.classify(_frame("update", 53)) is NEW
    assert positions.resumable() == {"prices.A": ("e1", 53)}


def test_a_jump_is_asked_for_once() -> None:
    """If the relay promises a replay and sends none, there is a gap, and no endless requests."""
    positions = _stream(5)
    assert positions.classify(_frame("update", 9)) is JUMP
    positions.hold(["prices.A"])
    positions.acknowledge(_ack(mode="stream", epoch="e1", seq=9, recovered=True), ["prices.A"])
    assert positions.classify(_frame("update", 9)) == Gap(channel="prices.A", epoch="e1", seq=5)
    assert positions.classify(_frame("update", 9)) is NEW
    assert positions.resumable() == {"prices.A": ("e1", 9)}


def test_a_new_epoch_of_a_stream_is_a_gap() -> None:
    """Nobody can tell what the old epoch still had, so a stream doesn't go on as if nothing was."""
    positions = _stream(5)
    assert positions.classify(_frame("snapshot", 1, epoch="e2")) == Gap(channel="prices.A", epoch="e1", seq=5)
    assert positions.classify(_frame("snapshot", 1, epoch="e2")) is NEW
    assert positions.classify(_frame("update", 2)) is NEW
    assert positions.resumable() == {"prices.A": ("e2", 2)}


def test_a_stream_without_a_value_yet_begins_without_a_gap() -> None:
    """The ack of an empty channel names no epoch; its first value is no loss."""
    positions = Positions()
    positions.acknowledge(_ack(mode="stream", epoch="", seq=0), ())
    assert positions.resumable() == {}
    assert positions.classify(_frame("snapshot", 1)) is NEW
    assert positions.classify(_frame("update", 2)) is NEW


def test_channels_of_a_stream_pattern_are_streams() -> None:
    """A pattern's ack tells the mode of all that it matches."""
    positions = Positions()
    positions.acknowledge(
        Subscribed(channels=(Acknowledged(channel="prices.*", mode="stream", matches=1),)), ()
    )
    assert positions.classify(_frame("snapshot", 3)) is NEW
    assert positions.resumable() == {"prices.A": ("e1", 3)}
    assert positions.classify(_frame("update", 5)) is JUMP


def test_positions_of_an_earlier_run_are_gone_on_from() -> None:
    """What the consumer saved is where its streams are resumed; on a latest channel it is of no effect."""
    at = Position(channel="prices.A", epoch="e1", seq=7)
    positions = Positions({"prices.A": at})
    assert positions.resumable() == {"prices.A": ("e1", 7)}
    positions.hold(["prices.A"])
    assert positions.acknowledge(_ack(mode="latest", epoch="e1", seq=9), ["prices.A"]) == []
    assert positions.classify(_frame("snapshot", 9)) is NEW


@pytest.mark.parametrize(
    ("channel", "epoch", "seq"), [("a b", "e", 1), ("a", "", 1), ("a", "e", -1), ("b", "e", 1)]
)
def test_positions_that_are_none_are_refused(channel: str, epoch: str, seq: int) -> None:
    """A damaged save is one sentence at the start, not a stream from nowhere."""
    with pytest.raises(ConfigurationError, match="not a position"):
        Positions({channel: Position(channel="a" if channel == "b" else channel, epoch=epoch, seq=seq)})


def test_a_refused_resumption_is_a_gap() -> None:
    """A channel whose resumption was refused is no longer held."""
    positions = _stream(5)
    positions.hold(["prices.A"])
    refused = Subscribed(rejected=(Rejected(channel="prices.A", code="too_many_channels"),))
    assert positions.acknowledge(refused, ["prices.A"]) == [Gap(channel="prices.A", epoch="e1", seq=5)]
    assert positions.classify(_frame("snapshot", 9)) is NEW


def test_a_lost_connection_lets_go_of_what_it_held() -> None:
    """No answer will come on a lost connection; the next one requests again."""
    positions = _stream(5)
    positions.hold(["prices.A"])
    positions.release()
    assert positions.classify(_frame("update", 6)) is NEW
