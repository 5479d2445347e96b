"""Which values are new."""

import json
from typing import Any

from relay.client.frames import Acknowledged, Snapshot, Subscribed, Update, parse_server_frame
from relay.client.positions import Positions
from tests.client.servers import value


def _frame(kind: str, seq: int, **members: Any) -> Snapshot | Update:
    frame = parse_server_frame(json.dumps(value(kind, seq, **members)))
    assert isinstance(frame, Snapshot | Update)
    return frame


def test_seq_must_grow_within_an_epoch() -> None:
    """The same or a smaller seq is a repeat; a jump is fine, for each value is whole."""
    positions = Positions()
    seqs = [(s, positions.is_new(_frame("update", s))) for s in (1, 2, 2, 1, 9, 8, 10)]
    assert [s for s, new in seqs if new] == [1, 2, 9, 10]


def test_channels_count_for_themselves() -> None:
    """A high seq of one channel says nothing about another."""
    positions = Positions()
    assert positions.is_new(_frame("update", 100))
    assert positions.is_new(_frame("update", 1, channel="prices.B"))


def test_a_repeated_snapshot_is_a_duplicate() -> None:
    """After a reconnect the same value comes again as a snapshot, and is not handed out twice."""
    positions = Positions()
    assert positions.is_new(_frame("snapshot", 5))
    assert positions.is_new(_frame("update", 6))
    assert not positions.is_new(_frame("snapshot", 6))
    assert positions.is_new(_frame("snapshot", 7))


def test_a_new_epoch_counts_from_one() -> None:
    """The sequencer died and counts anew: its first snapshot is news, whatever its seq."""
    positions = Positions()
    assert positions.is_new(_frame("snapshot", 500))
    assert positions.is_new(_frame("snapshot", 1, epoch="e2"))
    assert positions.is_new(_frame("update", 2))
    assert not positions.is_new(_frame("update", 2))


def test_an_ack_announces_the_epoch_but_not_the_value() -> None:
    """The ack comes before its snapshot with the same seq, which must not be taken for a repeat."""
    positions = Positions()
    positions.acknowledge(Subscribed(channels=(Acknowledged(channel="prices.A", epoch="e1", seq=5),)))
    assert positions.is_new(_frame("snapshot", 5))
    positions.acknowledge(Subscribed(channels=(Acknowledged(channel="prices.A", epoch="e1", seq=5),)))
    assert not positions.is_new(_frame("snapshot", 5))
    positions.acknowledge(Subscribed(channels=(Acknowledged(channel="prices.A", epoch="e2", seq=0),)))
    assert positions.is_new(_frame("update", 1))


def test_forgotten_channels_begin_again() -> None:
    """Unsubscribed and subscribed again, a channel's snapshot is handed out again."""
    positions = Positions()
    assert positions.is_new(_frame("snapshot", 5))
    positions.forget(lambda channel: channel == "prices.A")
    assert not positions.is_new(_frame("snapshot", 5))
    positions.forget(lambda _channel: False)
    assert positions.is_new(_frame("snapshot", 5))
