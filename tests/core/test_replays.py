"""Replays of stream channels: what a subscriber gets that was away, and how much work and memory it may cost."""

import json
from collections.abc import Iterator
from functools import partial

import pytest

from relay.core.catch_up import CATCH_UP_MS, SLICES_PER_TURN
from relay.core.channels import ChannelOptions
from relay.core.hub import QUEUE_BYTES, SLICE_BYTES, Hub
from relay.core.messages import Mode
from relay.core.protocol import FRAME_BURST, MISSED_A_FRAME
from relay.core.subscribers import Subscriber
from relay.core.subscriptions import SubscribeRequest
from tests.support.hub import Line, flush, joined, line_frame, make_hub, publication
from tests.support.protocol_client import ProtocolConnection, kinds
from tests.support.steps import count_steps


def names(channels: int) -> list[str]:
    return [f"prices.{number}" for number in range(channels)]


def filled(channels: int, history: int) -> Hub:
    """Return a hub whose channels have so many messages each, and can keep twice as many."""
    options = ChannelOptions(mode=Mode.STREAM, history_messages=2 * history, history_ms=1 << 50)
    hub, _ = make_hub(lambda _: options)
    for name in names(channels):
        for seq in range(1, history + 1):
            hub.publish(publication(name, seq))
    return hub


def resumed(hub: Hub, channels: int, seq: int = 0, room: int = 1 << 40) -> tuple[Line, Subscriber]:
    """Return a subscriber that has everything up to `seq`."""
    line = Line(room)
    subscriber = hub.join(line, line_frame)
    requests = [SubscribeRequest(name=name, since=("e1", seq)) for name in names(channels)]
    hub.subscribe(subscriber, requests)
    return line, subscriber


def finish(hub: Hub) -> Iterator[None]:
    """Do what the caller of a hub does after `wake_interval`, a turn at each step."""
    while hub._catching_up:
        hub.flush_interval(CATCH_UP_MS)
        yield


def frame(kind: str, channels: int, *, since: bool = False) -> str:
    members = {"type": kind, "channels": names(channels)}
    positions = {name: {"epoch": "e1", "seq": 0} for name in names(channels)}
    return json.dumps(members | ({"since": positions} if since else {}))


def steps_of_frames(channels: int, history: int) -> dict[str, int]:
    """Return the steps of each frame of a client that resumes all channels from their beginning."""
    peer = ProtocolConnection(hub=filled(channels, history))
    peer.open("prices.other")
    steps = {}
    for what, text in (
        ("resume", frame("subscribe", channels, since=True)),
        ("the same again", frame("subscribe", channels, since=True)),
        ("unsubscribe", frame("unsubscribe", channels)),
    ):
        peer.wait(3600)
        steps[what] = count_steps(partial(peer.client.receive, text, peer.now))
    return steps


# --- the work of one frame ------------------------------------------------------------------------


def test_a_frame_costs_as_much_as_its_channels() -> None:
    """It costs the same for any length of the history, and for eight times the channels eight times as much."""
    few, short, long = steps_of_frames(32, 10), steps_of_frames(256, 10), steps_of_frames(256, 200)
    for what in few:
        assert short[what] < 9 * few[what], what
        # the first slice of messages is written at once: about 250 of them
        assert long[what] < 1.2 * short[what] + 30 * SLICE_BYTES / 60, what


def test_what_waits_of_many_channels_is_removed_in_one_pass() -> None:
    """A slow reader's queue is searched once a frame, and not once for each channel of it."""

    def steps(channels: int, messages: int) -> int:
        hub = filled(channels, 1)
        line, subscriber = joined(hub, names(channels))
        list(finish(hub))
        line.room = 0
        for seq in range(2, 2 + messages // channels):
            for name in names(channels):
                hub.publish(publication(name, seq))
            flush(hub)
        assert subscriber.backlog is not None
        assert len(subscriber.backlog.queue) >= messages - 2 * channels
        return count_steps(lambda: hub.unsubscribe(subscriber, names(channels)))

    assert steps(256, 8192) < 3 * steps(32, 8192)


def test_a_turn_writes_a_few_slices() -> None:
    """Each turn of the event loop serves a few of the subscribers that resume, and later turns the others."""
    hub = filled(20, 100)
    readers = [resumed(hub, 20)[0] for _ in range(3 * SLICES_PER_TURN)]
    for reader in readers:
        reader.frames()
    assert hub.flush_interval(CATCH_UP_MS)
    assert sum(reader.read < len(reader.writes) for reader in readers) == SLICES_PER_TURN
    assert hub.flush_interval(CATCH_UP_MS)
    assert not hub.flush_interval(CATCH_UP_MS)
    assert [reader.read + 1 for reader in readers] == [len(reader.writes) for reader in readers]


# --- its price ------------------------------------------------------------------------------------


def test_missed_messages_are_charged_like_frames() -> None:
    """A client that asks for many waits before its next frame. Asking again is refused, and costs nothing."""
    peer = ProtocolConnection(hub=filled(4, 10 * MISSED_A_FRAME))
    peer.open("prices.other")
    assert peer.client.receive(frame("subscribe", 4, since=True), peer.now) is None
    (error,) = [one for one in peer.say(type="ping") if one["type"] == "error"]
    assert error["code"] == "rate_limited"
    assert error["retry_after_ms"] == pytest.approx(1000 * (40 + 2 - FRAME_BURST) / 10, abs=2)
    again = frame("subscribe", 4, since=True)
    assert count_steps(lambda: peer.client.receive(again, peer.now)) < 1000
    peer.wait(error["retry_after_ms"] / 1000)
    assert kinds(peer.say(type="ping"))[-1] == "pong"


def test_a_client_that_missed_little_goes_on_at_once() -> None:
    """A hundred messages on each of 256 channels leave half of the burst."""
    peer = ProtocolConnection(hub=filled(256, 100))
    peer.open("prices.other")
    assert peer.client.receive(frame("subscribe", 256, since=True), peer.now) is None
    peer.line.frames()
    assert kinds([frame for _ in range(8) for frame in peer.say(type="ping")]) == ["pong"] * 8


# --- what the client gets -------------------------------------------------------------------------


def test_everything_comes_in_order_and_what_is_published_in_that_time_after_it() -> None:
    """The replay of 256 channels takes many slices. Live messages of its channels follow without a gap or a repeat."""
    hub = filled(256, 100)
    line, subscriber = resumed(hub, 256)
    seq = 100
    for _ in finish(hub):
        if seq < 150:
            seq += 1
            for name in names(256):
                hub.publish(publication(name, seq))
            flush(hub)
    got: dict[str, list[int]] = {}
    for kind, channel, number in line.seqs():
        assert kind == "update"
        got.setdefault(channel, []).append(number)
    assert got == {name: list(range(1, seq + 1)) for name in names(256)}
    assert subscriber.backlog is None


def test_a_waiting_replay_holds_no_message() -> None:
    """A client that reads nothing has a position for each channel, however much it missed and whatever is published."""
    hub = filled(4, 1000)
    _, subscriber = resumed(hub, 4, room=0)
    backlog = subscriber.backlog
    assert backlog is not None
    for seq in range(1001, 1501):
        for name in names(4):
            hub.publish(publication(name, seq, data="x" * 1000))
        flush(hub)
    assert backlog is subscriber.backlog
    assert (len(backlog.replays), len(backlog.queue), backlog.queued_bytes) == (4, 0, 0)
    assert QUEUE_BYTES < 500 * 4 * 1000


def test_a_reader_that_the_history_overtakes_is_closed() -> None:
    """It was promised every message. Nothing is written after its end, and nothing of it stays."""
    hub = filled(2, 1000)
    line, subscriber = resumed(hub, 2, room=0)
    written = len(line.writes)
    for seq in range(1001, 3002):
        hub.publish(publication("prices.1", seq))
    line.take(1 << 40)
    while not line.overflown:
        hub.drained(subscriber)
        list(finish(hub))
    assert hub.counters.overflows == 1
    assert len(line.writes) > written
    assert all(frame["channel"] == "prices.0" or frame["seq"] <= 1000 for frame in line.frames())
    assert (subscriber.backlog, subscriber.channels) == (None, {})
    assert all(not channel.groups for channel in hub.channels())


def test_a_new_epoch_ends_a_replay_with_a_snapshot() -> None:
    """The messages of the old epoch are gone, and the client sees it."""
    hub = filled(1, 1000)
    line, _ = resumed(hub, 1)
    last = line.seqs()[-1]
    assert last[2] < 1000
    for seq in (1, 2):
        hub.publish(publication("prices.0", seq, "e2"))
    list(finish(hub))
    hub.publish(publication("prices.0", 3, "e2"))
    flush(hub)
    assert line.seqs() == [("snapshot", "prices.0", 2), ("update", "prices.0", 3)]


def test_a_status_that_changed_during_a_replay_comes_after_it() -> None:
    """The acknowledgement named an older one."""
    hub = filled(1, 1000)
    line, _ = resumed(hub, 1)
    line.frames()
    hub.mark_stale(now_ms=1 << 40)
    flush(hub)
    list(finish(hub))
    *updates, status = line.frames()
    assert (updates[-1]["seq"], status["type"], status["state"]) == (1000, "status", "stale")


def test_a_channel_that_is_unsubscribed_ends_its_replay() -> None:
    """Nothing of it comes any more, and the other channels go on."""
    hub = filled(2, 1000)
    line, subscriber = resumed(hub, 2)
    line.frames()
    hub.unsubscribe(subscriber, ["prices.0"])
    list(finish(hub))
    assert {channel for _, channel, _ in line.seqs()} == {"prices.1"}


def test_a_reader_that_is_too_slow_subscribes_to_nothing_more() -> None:
    """Its queue overflows with what the running flush holds for it. Nothing of it stays in the hub."""
    hub = filled(2, 1)
    line, subscriber = joined(hub, ["prices.0"])
    line.room = 0
    hub.publish(publication("prices.0", 2, data="x" * 10))
    flush(hub)
    joined(hub, ["prices.0"])
    hub.publish(publication("prices.0", 3, data="x" * QUEUE_BYTES))
    hub.flush(1)
    hub.subscribe(subscriber, [SubscribeRequest(name="prices.1")])
    assert line.overflown
    assert subscriber.channels == {}
