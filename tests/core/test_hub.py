"""The hub: which subscriber gets which frames, in which order, and what is left in memory afterwards."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from relay.core.catch_up import CATCH_UP_MS
from relay.core.channels import AckedState, ChannelOptions
from relay.core.hub import SLICE_BYTES
from relay.core.liveness import BEATS_PER_HEARTBEAT
from relay.core.messages import Mode
from relay.core.patterns import covers, is_wildcard
from relay.core.subscriptions import SubscribeRequest
from tests.support.hub import (
    ENDLESS,
    Line,
    event_frame,
    flush,
    joined,
    line_frame,
    make_hub,
    publication,
    subscribe_requests,
)

# --- one thing at a time --------------------------------------------------------------------------


def test_what_comes_in_together_goes_out_in_one_write() -> None:
    """Ticks of several channels before a flush are one write to each subscriber, and one wake."""
    hub, woken = make_hub()
    line, _ = joined(hub, ["a", "b"])
    for seq in (1, 2, 3):
        hub.publish(publication("a", seq))
        hub.publish(publication("b", seq))
    flush(hub)
    assert (len(line.writes), len(woken)) == (1, 1)
    assert [seq for kind, channel, seq in line.seqs() if channel == "a"] == [1, 2, 3]


def test_a_flush_stops_after_its_slice() -> None:
    """It writes to no more subscribers than it may. Publications that arrive during it form the next flush."""
    hub, woken = make_hub()
    lines = [joined(hub, ["a"])[0] for _ in range(5)]
    hub.publish(publication("a", 1))
    assert hub.flush(2)
    assert sum(len(line.writes) for line in lines) == 2
    hub.publish(publication("a", 2))
    assert len(woken) == 1  # the flush is under way
    flush(hub)
    assert all(line.seqs() == [("snapshot", "a", 1), ("update", "a", 2)] for line in lines)
    assert all(len(line.writes) == 2 for line in lines)


def test_values_that_wait_longest_are_written_first() -> None:
    """The order of a flush is that of the values, whatever the order of the subscribers, also if one leaves in it."""
    hub, _ = make_hub()
    (late, _), (early, _), (_, leaver), (earliest, _) = (joined(hub, [name]) for name in "dcba")
    for name in "abcd":
        hub.publish(publication(name, 1))
    assert hub.flush(1)
    assert [len(line.writes) for line in (earliest, early, late)] == [1, 0, 0]
    hub.leave(leaver)
    hub.publish(publication("a", 2))  # the next flush
    while hub.flush(1):
        assert len(early.writes) >= len(late.writes)
    assert [len(line.writes) for line in (earliest, early, late)] == [2, 1, 1]


def test_few_readers_get_what_comes_during_a_flush_with_the_same_write() -> None:
    """A value that has few readers goes out with what the flush has for them. One that has many waits for the next."""
    hub, woken = make_hub()
    names = [f"own{number}" for number in range(16)]
    lines = [joined(hub, ["all", name])[0] for name in names]
    hub.publish(publication("all", 1))
    assert hub.flush(4)
    for name in names:
        hub.publish(publication(name, 1))
    assert hub.flush(4)
    assert [len(line.writes) for line in lines] == [1] * 8 + [0] * 8
    hub.publish(publication("all", 2))
    flush(hub)
    assert len(woken) == 1
    assert [len(line.writes) for line in lines] == [2] * 16
    for line, name in zip(lines, names, strict=True):
        one, own, two = ("snapshot", "all", 1), ("snapshot", name, 1), ("update", "all", 2)
        assert line.seqs() == [one, own, two]


def test_a_joiner_enters_without_a_gap_or_a_repeat() -> None:
    """A subscriber that joins while ticks are queued gets the newest value at once, and then newer ones."""
    hub, _ = make_hub()
    hub.publish(publication("a", 1))
    hub.publish(publication("a", 2))
    line, _ = joined(hub, ["a"])
    assert line.seqs() == [("snapshot", "a", 2)]
    hub.publish(publication("a", 3))
    flush(hub)
    assert line.seqs() == [("update", "a", 3)]


@pytest.mark.parametrize(("published", "room"), [(True, ENDLESS), (False, ENDLESS), (True, 0)])
def test_what_a_subscription_answers_shares_its_first_write(published: bool, room: int) -> None:
    """Acknowledgements are written before the value and with it. Without one, or if it must wait, they go alone."""
    hub, _ = make_hub()
    if published:
        hub.publish(publication("a", 7))
    line = Line(room)
    subscriber = hub.join(line, line_frame)
    hub.send(subscriber, b'{"type":"pong"}')
    hub.subscribe(
        subscriber, subscribe_requests(["a"]), after=[b'{"type":"welcome"}', b'{"type":"subscribed"}']
    )
    together = published and room == ENDLESS
    kinds = [frame["type"] for frame in line.frames()]
    assert kinds == ["pong", "welcome", "subscribed", *["snapshot"] * together]
    assert len(line.writes) == 2
    if not room:
        line.take(ENDLESS)
        hub.drained(subscriber)
        assert line.seqs() == [("snapshot", "a", 7)]


def test_what_waits_while_a_slow_reader_catches_up_is_counted() -> None:
    """Its newest value replaces those that are queued for the next flush. They count as conflated."""
    hub, _ = make_hub()
    line, subscriber = joined(hub, ["a"], room=0)
    for seq in range(1, 4):
        hub.publish(publication("a", seq))
        flush(hub)
    for seq in range(4, 8):
        hub.publish(publication("a", seq))
    line.take(ENDLESS)
    hub.drained(subscriber)
    flush(hub)
    assert line.seqs()[-1][2] == 7
    assert (subscriber.conflated, subscriber.messages) == (5, 2)


def test_changing_subscriptions_during_a_flush_costs_no_tick() -> None:
    """A fast subscriber gets all that the running flush holds for it, before `unsubscribe` returns too."""
    hub, _ = make_hub()
    line, subscriber = joined(hub, ["a"])
    joined(hub, ["a"])
    for seq in (1, 2):
        hub.publish(publication("a", seq))
    assert hub.flush(1)  # the other one's turn
    hub.publish(publication("b", 1))
    hub.subscribe(subscriber, subscribe_requests(["b"]))
    assert line.seqs() == [("snapshot", "a", 1), ("update", "a", 2), ("snapshot", "b", 1)]
    hub.unsubscribe(subscriber, ["b"])
    flush(hub)
    assert line.seqs() == []
    assert hub.counters.conflated == 0


def test_a_slow_reader_gets_newest_values_only() -> None:
    """While bytes are pending nothing is written. Then each channel is sent once, with its newest value."""
    hub, _ = make_hub()
    line, subscriber = joined(hub, ["a", "b"], room=0)
    for seq in (1, 2, 3):
        hub.publish(publication("a", seq))
        hub.publish(publication("b", seq))
        flush(hub)
    assert line.seqs() == [("snapshot", "a", 1), ("snapshot", "b", 1)]
    line.take(ENDLESS)
    hub.drained(subscriber)
    assert line.seqs() == [("update", "a", 3), ("update", "b", 3)]
    assert (subscriber.conflated, subscriber.messages) == (4, 4)


def test_a_slow_reader_catches_up_in_steps() -> None:
    """About 16 KiB are written at once, so that the rest can still be replaced by newer values."""
    hub, _ = make_hub()
    for number in range(40):
        hub.publish(publication(f"a.{number}", 1, data="x" * 1000))
    line, subscriber = joined(hub, ["a.*"], room=0)
    first = len(line.frames())
    assert len(line.writes) == 1
    assert SLICE_BYTES <= len(line.writes[0]) < SLICE_BYTES + 1100
    hub.publish(publication("a.39", 2, data="newer"))
    flush(hub)
    line.take(ENDLESS)
    hub.drained(subscriber)
    steps = 0
    while subscriber.backlog is not None:
        hub.flush_interval(CATCH_UP_MS)
        steps += 1
    assert steps
    rest = line.frames()
    assert first + len(rest) == 40
    assert next(frame["data"] for frame in rest if frame["channel"] == "a.39") == "newer"


def test_an_older_epoch_that_comes_back_begins_with_a_snapshot() -> None:
    """A blocked client does not see that the epoch changed twice, so its next value must name the epoch."""
    hub, _ = make_hub()
    line, subscriber = joined(hub, ["a"])
    hub.publish(publication("a", 1, "e1"))
    flush(hub)
    line.room = 0
    hub.publish(publication("a", 2, "e1"))
    flush(hub)
    line.frames()
    for seq, epoch in ((3, "e1"), (1, "e2"), (4, "e1")):
        hub.publish(publication("a", seq, epoch))
        flush(hub)
    line.take(ENDLESS)
    hub.drained(subscriber)
    assert line.seqs() == [("snapshot", "a", 4)]


def test_names_that_clients_make_up_do_not_pile_up() -> None:
    """A channel without a value is removed with its last exact subscriber, even if a pattern covers it."""
    hub, _ = make_hub()
    everything, _ = joined(hub, [">"])
    _, subscriber = joined(hub, [])
    for number in range(50):
        hub.subscribe(subscriber, subscribe_requests([f"made.up.{number}"]))
        hub.unsubscribe(subscriber, [f"made.up.{number}"])
    assert hub._subscriptions._channels == {}
    hub.subscribe(subscriber, subscribe_requests(["a"]))
    hub.publish(publication("a", 1))
    flush(hub)
    assert everything.seqs() == [("snapshot", "a", 1)]


def test_a_channel_that_is_covered_twice_comes_once() -> None:
    """It is sent until the last of the names that cover it is unsubscribed."""
    hub, _ = make_hub()
    hub.publish(publication("a.x", 1))
    line, subscriber = joined(hub, ["a.x", "a.*", "a.>", "a.x"])
    assert line.seqs() == [("snapshot", "a.x", 1)]
    assert hub.unsubscribe(subscriber, ["a.>", "a.x", "a.x", "never"]) == ["a.>", "a.x"]
    hub.publish(publication("a.x", 2))
    flush(hub)
    assert line.seqs() == [("update", "a.x", 2)]
    assert hub.unsubscribe(subscriber, ["a.*"]) == ["a.*"]
    hub.publish(publication("a.x", 3))
    flush(hub)
    assert line.seqs() == []


def test_the_state_of_a_channel() -> None:
    """Epoch, seq and time of its newest value, or none."""
    hub, _ = make_hub()
    assert hub.acked_state(SubscribeRequest(name="a")) == AckedState(
        mode=Mode.LATEST, epoch="", seq=0, stale=True, recovered=False
    )
    hub.publish(publication("a", 7))
    assert not hub.publish(publication("a", 7))
    assert hub.acked_state(SubscribeRequest(name="a")) == AckedState(
        mode=Mode.LATEST, epoch="e1", seq=7, stale=False, recovered=False
    )
    assert hub.counters.duplicates == 1


# --- two transports in one hub --------------------------------------------------------------------


def test_a_transport_without_subscribers_costs_nothing() -> None:
    """A publication is encoded once per transport that has subscribers, whatever their number and interval."""
    encoded: list[tuple[str, bytes]] = []

    def as_line(message: bytes) -> bytes:
        encoded.append(("line", message))
        return message + b"\n"

    def as_event(message: bytes) -> bytes:
        encoded.append(("event", message))
        return b"data: " + message + b"\n\n"

    hub, _ = make_hub()
    hub.publish(publication("a", 1))
    assert encoded == []
    lines = [Line() for _ in range(3)]
    for line in lines:
        hub.subscribe(hub.join(line, as_line), subscribe_requests(["a"]))
    hub.publish(publication("a", 2))
    flush(hub)
    assert [kind for kind, _ in encoded] == ["line"] * 2  # a snapshot and an update
    events = [Line(), Line()]
    hub.subscribe(hub.join(events[0], as_event), subscribe_requests(["a"]))
    hub.subscribe(hub.join(events[1], as_event), subscribe_requests(["a"], 50))
    hub.publish(publication("a", 3))
    hub.flush_interval(50)
    flush(hub)
    assert [kind for kind, _ in encoded[2:]] == ["event", "line", "event"]
    assert len({id(line.writes[-1]) for line in lines}) == 1
    assert events[0].writes[-1] is events[1].writes[-1]
    assert events[0].writes[-1] == b"data: " + lines[0].writes[-1] + b"\n"


def test_a_replay_is_encoded_for_the_transport_that_resumes() -> None:
    """The history is kept once. Each transport gets the missed messages as its own frames."""
    hub, _ = make_hub(lambda _: ChannelOptions(mode=Mode.STREAM, history_messages=9, history_ms=1000))
    for seq in range(1, 5):
        hub.publish(publication("a", seq))
    for encode in (line_frame, event_frame):
        line = Line(encode=encode)
        hub.subscribe(hub.join(line, encode), [SubscribeRequest(name="a", since=("e1", 2))])
        assert line.seqs() == [("update", "a", 3), ("update", "a", 4)]


# --- more history than the hub keeps --------------------------------------------------------------

SHORT = ChannelOptions(mode=Mode.STREAM, history_messages=2, history_ms=1000)


@pytest.mark.parametrize(
    ("since", "lacks"),
    [
        (("e1", 1), True),
        (("e1", 2), False),
        (("e1", 4), False),
        (("e1", 9), False),
        (("e1", -1), False),
        (("e0", 1), False),
    ],
)
def test_the_broker_is_asked_only_for_what_the_hub_does_not_keep(since: tuple[str, int], lacks: bool) -> None:
    """It is not asked for messages that the hub has, that do not exist yet, or that are of another epoch."""
    hub, _ = make_hub(lambda _: SHORT)
    assert not hub.lacks_history("a", *since)
    for seq in range(1, 5):
        hub.publish(publication("a", seq))
    assert hub.lacks_history("a", *since) == lacks


def test_a_channel_of_newest_values_has_no_history_to_ask_for() -> None:
    """Its snapshot is all that a client needs."""
    hub, _ = make_hub()
    hub.publish(publication("a", 4))
    assert not hub.lacks_history("a", "e1", 1)


@pytest.mark.parametrize(
    ("has", "recovered"),
    [
        ([2, 3], True),  # what comes before the hub's own
        ([2, 3, 4, 5, 6, 7], True),  # the same, and some of it, and what the hub has not got yet
        ([3], False),
        ([2], False),
        ([], False),
    ],
)
def test_the_brokers_history_completes_the_hubs(has: list[int], recovered: bool) -> None:
    """All missed messages come once and in order, or none of them and a snapshot. The ack says which."""
    hub, _ = make_hub(lambda _: SHORT)
    for seq in range(1, 6):
        hub.publish(publication("a", seq))
    line = Line()
    request = SubscribeRequest(name="a", since=("e1", 1), from_broker=[publication("a", seq) for seq in has])
    assert hub.acked_state(request).recovered == recovered
    subscriber = hub.join(line, line_frame)
    hub.subscribe(subscriber, [request])
    replay = [("update", "a", seq) for seq in range(2, 6)]
    assert line.seqs() == (replay if recovered else [("snapshot", "a", 5)])
    hub.publish(publication("a", 6))
    flush(hub)
    assert line.seqs() == [("update", "a", 6)]


def test_a_position_that_a_client_invents_costs_nothing() -> None:
    """A distant seq is compared and not counted up to. Publications of another epoch are ignored."""
    hub, _ = make_hub(lambda _: SHORT)
    hub.publish(publication("a", 1 << 60))
    for since in (("e1", 0), ("e1", -(1 << 60))):
        request = SubscribeRequest(name="a", since=since, from_broker=[publication("a", 1, "e0")])
        assert not hub.acked_state(request).recovered


def test_heartbeats_and_statuses_reach_each_transport_as_its_frames() -> None:
    """Frames that are no values are encoded for the transport too."""
    hub, _ = make_hub()
    lines = [joined(hub, ["a"], encode=encode)[0] for encode in (line_frame, event_frame, event_frame)]
    hub.publish(publication("a", 1))
    hub.mark_stale(now_ms=1_000_000)
    flush(hub)
    for _ in range(BEATS_PER_HEARTBEAT):
        list(hub.beat(now_ms=7))
    for line in lines:
        assert [frame["type"] for frame in line.frames()] == ["snapshot", "status", "heartbeat"]
    assert lines[1].writes[-1] is lines[2].writes[-1]


def test_a_status_between_two_values_of_an_interval_follows_the_newest() -> None:
    """With an interval, no state of a channel comes before its first value, and only the last one after it."""
    hub, _ = make_hub()
    line, subscriber = joined(hub, [])
    hub.subscribe(subscriber, subscribe_requests([">"], 50))
    hub.publish(publication("a", 1, ts=1))
    hub.mark_stale(now_ms=1_000_000)
    hub.publish(publication("a", 2, ts=1_000_000))
    hub.publish(publication("a", 3, ts=1_000_001))
    hub.flush_interval(50)
    flush(hub)
    assert [(frame["type"], frame.get("seq"), frame.get("state")) for frame in line.frames()] == [
        ("snapshot", 3, None),
        ("status", None, "live"),
    ]


names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(".".join)
patterns = st.builds(
    lambda front, last: ".".join([*front, last]),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=2),
    st.sampled_from(["a", "*", ">"]),
)


@given(st.sets(names), patterns)
def test_a_pattern_finds_the_channels_that_it_covers(channels: set[str], pattern: str) -> None:
    """The search in the tree finds the same channels as a comparison with each."""
    hub, _ = make_hub()
    for name in channels:
        hub.publish(publication(name, 1))
    line, _ = joined(hub, [pattern])
    expected = {name for name in channels if covers(pattern, name)}
    assert {channel for _, channel, _ in line.seqs()} == expected
    if is_wildcard(pattern):
        assert hub.match_count(pattern) == len(expected)
