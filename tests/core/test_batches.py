"""Packed messages: what an interval's flush has for the readers of the same channels is packed once for all of them."""

import json
from collections.abc import Iterable

from relay.core.hub import WRITES_A_PACK, Hub
from relay.core.subscribers import Pack, Subscriber
from tests.support.hub import Line, batch_of, flush, line_frame, make_hub, publication, subscribe_requests

INTERVAL_MS = 100


class Packer:
    """A `Pack` that notes how many readers each of its messages was for."""

    def __init__(self) -> None:
        self.readers: list[int] = []

    def __call__(self, frames: bytes, readers: int) -> bytes | None:
        self.readers.append(readers)
        return batch_of(line_frame)(frames, readers)


def reader(
    hub: Hub, names: Iterable[str], pack: Pack | None, interval_ms: int = INTERVAL_MS
) -> tuple[Line, Subscriber]:
    """Add a reader of channels that have no value yet."""
    line = Line()
    subscriber = hub.join(line, line_frame, pack)
    hub.subscribe(subscriber, subscribe_requests(names, interval_ms))
    return line, subscriber


def publish(hub: Hub, names: Iterable[str], seq: int) -> None:
    for name in names:
        hub.publish(publication(name, seq))


def flush_interval(hub: Hub) -> None:
    hub.flush_interval(INTERVAL_MS)
    flush(hub)


def types(line: Line) -> list[list[str]]:
    """Return the types of the messages in each write, those of a batch in parentheses."""
    return [
        [
            f"({' '.join(one['type'] for one in message['frames'])})"
            if message["type"] == "batch"
            else message["type"]
            for message in map(json.loads, write.splitlines())
        ]
        for write in line.writes
    ]


def test_readers_of_the_same_channels_share_one_message() -> None:
    """It is packed once for each set of channels, whatever the order of their names; readers without it get frames."""
    hub, _ = make_hub()
    pack = Packer()
    same = [reader(hub, names, pack)[0] for names in ("ab", "ba", ("a", "b"))]
    other, plain = reader(hub, "a", pack)[0], reader(hub, "ab", None)[0]
    publish(hub, "ab", 1)
    flush_interval(hub)
    assert [types(line) for line in same] == [[["(snapshot snapshot)"]]] * 3
    assert same[0].writes[0] is same[1].writes[0] is same[2].writes[0]
    assert types(other) == [["(snapshot)"]]
    assert types(plain) == [["snapshot", "snapshot"]]
    assert sorted(pack.readers) == [1, 3]


def test_sets_share_a_flush_in_which_only_what_they_have_in_common_has_changed() -> None:
    """The key is what a flush brings, so readers of different sets share it where it is the same."""
    hub, _ = make_hub()
    pack = Packer()
    lines = [reader(hub, names, pack)[0] for names in ("ab", "ac", "b")]
    publish(hub, "a", 1)
    flush_interval(hub)
    assert pack.readers == [2]
    assert lines[0].writes[0] is lines[1].writes[0]
    assert not lines[2].writes


def test_only_an_interval_is_packed() -> None:
    """What is sent at once, an acknowledgement, a snapshot of a new reader and a heartbeat are frames of their own."""
    hub, _ = make_hub()
    pack = Packer()
    at_once, subscriber = reader(hub, "a", pack, interval_ms=0)
    publish(hub, "a", 1)
    flush(hub)
    late, _ = reader(hub, "a", pack)
    hub.send(subscriber, b'{"type":"pong"}')
    for _ in range(5):
        list(hub.beat(now_ms=7))
    assert types(at_once) == [["snapshot"], ["pong"], ["heartbeat"]]
    assert types(late) == [["snapshot"], ["heartbeat"]]
    assert not pack.readers


def test_a_reader_that_joins_between_gets_its_own_message() -> None:
    """It has the newest value of what is queued already, so it gets less than the others do in this flush."""
    hub, _ = make_hub()
    pack = Packer()
    first, _ = reader(hub, "ab", pack)
    publish(hub, "a", 1)
    late, _ = reader(hub, "ab", pack)
    publish(hub, "b", 1)
    flush_interval(hub)
    assert types(first) == [["(snapshot snapshot)"]]
    assert types(late) == [["snapshot"], ["(snapshot)"]]
    publish(hub, "ab", 2)
    flush_interval(hub)
    assert first.writes[-1] is late.writes[-1]
    assert pack.readers == [1, 1, 2]


def test_a_reader_that_changes_its_channels_in_a_flush_gets_frames() -> None:
    """What the flush still has for it is written at once, before the answer. The others get their message."""
    hub, _ = make_hub()
    lines = [reader(hub, "ab", Packer()) for _ in range(3)]
    publish(hub, "ab", 1)
    hub.flush_interval(INTERVAL_MS)
    hub.flush(1)
    changed = next((line, subscriber) for line, subscriber in lines if not line.writes)
    hub.unsubscribe(changed[1], ["b"])
    flush(hub)
    assert sorted(types(line) for line, _ in lines) == [
        [["(snapshot snapshot)"]],
        [["(snapshot snapshot)"]],
        [["snapshot", "snapshot"]],
    ]


def test_what_comes_during_a_flush_follows_the_packed_message() -> None:
    """A slow flush that is not finished at the next interval gives each reader both values, in their order."""
    hub, _ = make_hub()
    lines = [reader(hub, "a", Packer())[0] for _ in range(2)]
    publish(hub, "a", 1)
    hub.flush_interval(INTERVAL_MS)
    hub.flush(1)
    publish(hub, "a", 2)
    flush_interval(hub)
    assert sorted(types(line) for line in lines) == [[["(snapshot update)"]], [["(snapshot)"], ["(update)"]]]


def test_what_is_not_packed_goes_as_frames() -> None:
    """A pack may refuse, for example because no CPU is left for it."""
    hub, _ = make_hub()
    lines = [reader(hub, "ab", lambda _frames, _readers: None)[0] for _ in range(2)]
    publish(hub, "ab", 1)
    flush_interval(hub)
    assert [types(line) for line in lines] == [[["snapshot", "snapshot"]]] * 2
    assert hub.counters.deliveries == 4


def test_a_turn_packs_few_messages() -> None:
    """Packing takes longer than writing: a turn ends after some of it, and the next turns do the rest."""
    hub, _ = make_hub()
    names, pack = [f"c{number}" for number in range(30)], Packer()
    lines = [reader(hub, [name], pack)[0] for name in names]
    publish(hub, names, 1)
    hub.flush_interval(INTERVAL_MS)
    turns = 1
    while hub.flush(10 * WRITES_A_PACK):
        assert len(pack.readers) == turns * 10
        turns += 1
    assert turns == 3
    assert all(types(line) == [["(snapshot)"]] for line in lines)


def test_a_slow_reader_gets_its_backlog_as_frames() -> None:
    """It misses the packed message and gets the newest values when it has read, as a reader without packing does."""
    hub, _ = make_hub()
    line, subscriber = reader(hub, "ab", Packer())
    line.room = 0
    publish(hub, "ab", 1)
    flush_interval(hub)
    publish(hub, "ab", 2)
    flush_interval(hub)
    line.take(1 << 20)
    hub.drained(subscriber)
    assert types(line) == [["(snapshot snapshot)"], ["update", "update"]]


def test_a_reader_that_has_left_is_forgotten() -> None:
    """Nothing of it stays, also if it leaves in the middle of a flush."""
    hub, _ = make_hub()
    (_, first), (line, _) = (reader(hub, "a", Packer()) for _ in range(2))
    publish(hub, "a", 1)
    hub.flush_interval(INTERVAL_MS)
    hub.leave(first)
    flush(hub)
    assert types(line) == [["(snapshot)"]]
    assert first not in hub._packing
