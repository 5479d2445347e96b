"""One connection: its start and its subscriptions."""

import json

import pytest

from relay.core.channels import ChannelOptions
from relay.core.errors import Reason
from relay.core.events import Action
from relay.core.messages import MAX_CHANNELS_A_CONNECTION, MAX_CHANNELS_A_FRAME, Mode
from relay.core.protocol import FRAMES_PER_S, MATCHES_A_FRAME, HistoryRequest, RefreshRequest
from relay.core.scope import Scope
from relay.core.subscriptions import SubscribeRequest
from tests.support.hub import flush, make_hub, publication
from tests.support.protocol_client import MS, NOW, ProtocolConnection, kinds

# --- the beginning --------------------------------------------------------------------------------


def test_welcome_comes_first_with_the_terms() -> None:
    """The first frame names the connection, the server's clock and when it will end, in milliseconds."""
    welcome = ProtocolConnection().open("prices.A")[0]
    assert welcome["type"] == "welcome"
    assert (welcome["connection"], welcome["ts"], welcome["expires_at"]) == ("c1", MS, MS + 3_600_000)
    assert welcome["limits"]["frames_per_s"] == FRAMES_PER_S


def test_what_the_url_asks_for_wins() -> None:
    """Channels of the URL are subscribed at once, whatever the token names."""
    talk = ProtocolConnection("prices.A", "prices.B")
    assert [ack["channel"] for ack in talk.open("prices.B")[1]["channels"]] == ["prices.B"]
    assert talk.subscriber.exact == {"prices.B": 0}


def test_a_token_that_names_channels_subscribes_to_them() -> None:
    """Without channels in the URL the token's exact ones are subscribed. Its patterns only give permission."""
    talk = ProtocolConnection("prices.A", "prices.B", "depth.*")
    assert [ack["channel"] for ack in talk.open()[1]["channels"]] == ["prices.A", "prices.B"]
    assert talk.subscriber.patterns == {}


def test_nobody_waits_in_silence() -> None:
    """When neither names a channel, `welcome` is followed by an error, and the connection stays open."""
    talk = ProtocolConnection("prices.>")
    frames = talk.open()
    assert kinds(frames) == ["welcome", "error"]
    assert frames[1]["code"] == "nothing_subscribed"
    assert kinds(talk.say(type="subscribe", channels=["prices.A"])) == ["subscribed"]


def test_a_connection_that_was_closed_before_it_opened_says_nothing() -> None:
    """A client can be gone while its token is looked up; then nothing may be written."""
    talk = ProtocolConnection()
    talk.client.close(Reason.CLIENT_CLOSED)
    assert talk.open("prices.A") == []
    assert talk.hub._subscriptions._channels == {}


# --- subscriptions --------------------------------------------------------------------------------


def test_the_ack_comes_before_any_data() -> None:
    """First the ack of all channels, then their snapshots, then updates."""
    talk = ProtocolConnection()
    talk.hub.publish(publication("prices.A", 3))
    talk.hub.publish(publication("prices.B", 5))
    frames = talk.open("prices.A", "prices.*")
    assert kinds(frames) == ["welcome", "subscribed", "snapshot", "snapshot"]
    assert frames[1]["channels"] == [
        {"channel": "prices.A", "mode": "latest", "interval_ms": 0, "epoch": "e1", "seq": 3}
        | {"state": "live", "recovered": False},
        {"channel": "prices.*", "mode": "latest", "interval_ms": 0, "matches": 2},
    ]
    talk.hub.publish(publication("prices.A", 4))
    flush(talk.hub)
    assert kinds(talk.line.frames()) == ["update"]


@pytest.mark.parametrize(("silent_ms", "state"), [(0, "live"), (5000, "live"), (5001, "stale")])
def test_a_value_is_live_until_its_publisher_was_silent_too_long(silent_ms: int, state: str) -> None:
    """The ack has the result of the hub's last search for silent channels."""
    talk = ProtocolConnection()
    talk.hub.publish(publication("prices.A", 1, ts=MS))
    talk.hub.mark_stale(now_ms=MS + silent_ms)
    assert talk.open("prices.A")[1]["channels"][0]["state"] == state


def test_silence_is_told_and_so_is_its_end() -> None:
    """A subscriber is told once that a channel became stale, and after its next value that it is live again."""
    talk = ProtocolConnection()
    talk.hub.publish(publication("prices.A", 1, ts=MS))
    talk.open("prices.A")
    for _ in range(2):
        talk.hub.mark_stale(now_ms=MS + 5001)
        flush(talk.hub)
    told = talk.line.frames()
    assert told == [{"type": "status", "channel": "prices.A", "state": "stale", "since": MS}]
    talk.hub.publish(publication("prices.A", 2, ts=MS + 6000))
    flush(talk.hub)
    update, status = talk.line.frames()
    assert (update["type"], status["state"], status["since"]) == ("update", "live", MS + 6000)


@pytest.mark.parametrize(
    ("asked", "floor", "granted"),
    [(0, 0, 0), (1, 0, 50), (100, 0, 100), (300, 0, 500), (9999, 0, 1000), (0, 200, 250)],
)
def test_the_next_longer_interval_is_granted(asked: int, floor: int, granted: int) -> None:
    """The ack names the interval: the next longer one that exists, and no faster than the token and endpoint allow."""
    talk = ProtocolConnection(floor_ms=floor)
    talk.open("prices.A")
    (ack,) = talk.say(type="subscribe", channels=["prices.B", "prices.*"], interval_ms=asked)
    assert [entry["interval_ms"] for entry in ack["channels"]] == [granted, granted]


def test_a_channel_without_a_value_is_stale_at_seq_0() -> None:
    """Subscribing ahead of the first publication is fine."""
    ack = ProtocolConnection().open("prices.A")[1]["channels"][0]
    assert (ack["epoch"], ack["seq"], ack["state"]) == ("", 0, "stale")


def test_each_rejected_channel_has_its_reason() -> None:
    """What is malformed or outside the scope is named in the ack and in the audit log; the rest is subscribed."""
    talk = ProtocolConnection("prices.>")
    talk.open("prices.A")
    talk.reports.clear()
    names = ["prices.B", "orders.1", "prices..C", ">", "prices.B", "x" * 65, "prices.*.>"]
    (ack,) = talk.say(type="subscribe", id=9, channels=names)
    assert ack["id"] == 9
    assert [entry["channel"] for entry in ack["channels"]] == ["prices.B", "prices.*.>"]
    assert [(entry["channel"], entry["code"]) for entry in ack["rejected"]] == [
        ("orders.1", "forbidden"),
        ("prices..C", "malformed"),
        (">", "forbidden"),
        ("x" * 64, "malformed"),
    ]
    assert talk.reports == [
        (Action.SUBSCRIBE_ACCEPTED, ["prices.B", "prices.*.>"], None),
        (Action.SUBSCRIBE_DENIED, ["orders.1", ">"], Reason.CHANNEL_FORBIDDEN),
        (Action.SUBSCRIBE_DENIED, ["prices..C", "x" * 64], Reason.REQUEST_MALFORMED),
    ]


def test_subscribing_twice_is_a_success_without_a_second_snapshot() -> None:
    """The ack shows the channel again; its data goes on as it was. The audit log is told of new names only."""
    talk = ProtocolConnection()
    talk.hub.publish(publication("prices.A", 1))
    talk.open("prices.A")
    talk.reports.clear()
    frames = talk.say(type="subscribe", channels=["prices.A"])
    assert kinds(frames) == ["subscribed"]
    assert frames[0]["channels"][0]["seq"] == 1
    assert talk.reports == []
    talk.say(type="subscribe", channels=["prices.A", "prices.B"], interval_ms=100)
    assert talk.reports == [(Action.SUBSCRIBE_ACCEPTED, ["prices.B"], None)]
    assert "id" not in frames[0]


def test_a_frame_names_256_channels_at_most() -> None:
    """The rest is left out, and the ack says from which one on."""
    talk = ProtocolConnection()
    names = [f"prices.{number}" for number in range(MAX_CHANNELS_A_FRAME + 3)]
    (ack,) = talk.say(type="subscribe", channels=names)
    assert [entry["channel"] for entry in ack["channels"]] == names[:MAX_CHANNELS_A_FRAME]
    assert [(entry["channel"], entry["code"]) for entry in ack["rejected"]] == [
        (names[MAX_CHANNELS_A_FRAME], "too_many_channels")
    ]
    assert "3 in all" in ack["rejected"][0]["message"]


def test_a_connection_has_1024_subscriptions_at_most() -> None:
    """Patterns count as one; one more is refused, one that is there already is not, and room comes back."""
    talk = ProtocolConnection()
    for start in range(0, MAX_CHANNELS_A_CONNECTION, 256):
        names = [
            f"prices.{number}.*" if number % 2 else f"prices.{number}" for number in range(start, start + 256)
        ]
        assert talk.say(type="subscribe", channels=names)[0]["rejected"] == []
    (ack,) = talk.say(type="subscribe", channels=["prices.0", "prices.new", "prices.1.*"])
    assert [entry["channel"] for entry in ack["channels"]] == ["prices.0", "prices.1.*"]
    assert [(entry["channel"], entry["code"]) for entry in ack["rejected"]] == [
        ("prices.new", "too_many_channels")
    ]
    assert talk.reports[-1] == (Action.SUBSCRIBE_DENIED, ["prices.new"], Reason.CHANNELS_TOO_MANY)
    talk.say(type="unsubscribe", channels=["prices.0"])
    assert talk.say(type="subscribe", channels=["prices.new"])[0]["rejected"] == []


def test_unsubscribing_names_what_was_subscribed() -> None:
    """The ack has those that were; no data of them follows, and they can be subscribed again."""
    talk = ProtocolConnection()
    talk.hub.publish(publication("prices.A", 1))
    talk.open("prices.A", "prices.B")
    assert talk.say(type="unsubscribe", id=2, channels=["prices.A", "prices.C", "prices.A", ""]) == [
        {"type": "unsubscribed", "id": 2, "channels": ["prices.A"]}
    ]
    talk.hub.publish(publication("prices.A", 2))
    flush(talk.hub)
    assert talk.line.frames() == []
    assert kinds(talk.say(type="subscribe", channels=["prices.A"])) == ["subscribed", "snapshot"]


def test_a_sign_of_life_keeps_a_channel_live() -> None:
    """Its value is unchanged and not old: no status, until nothing is heard for as long again."""
    talk = ProtocolConnection()
    talk.hub.publish(publication("prices.A", 1, ts=MS))
    talk.open("prices.A")
    talk.hub.alive("prices.A", ts=MS + 4000)
    talk.hub.mark_stale(now_ms=MS + 9000)
    flush(talk.hub)
    assert talk.line.frames() == []
    talk.hub.mark_stale(now_ms=MS + 9001)
    flush(talk.hub)
    (status,) = talk.line.frames()
    assert (status["state"], status["since"]) == ("stale", MS + 4000)
    talk.hub.alive("prices.A", ts=MS + 9500)
    flush(talk.hub)
    (status,) = talk.line.frames()
    assert (status["type"], status["state"], status["since"]) == ("status", "live", MS + 9500)


def test_a_channel_without_a_value_is_not_alive() -> None:
    """There is nothing that could be fresh."""
    talk = ProtocolConnection()
    talk.open("prices.A")
    talk.hub.alive("prices.A", ts=MS)
    talk.hub.alive("prices.NONE", ts=MS)
    flush(talk.hub)
    assert talk.line.frames() == []
    assert talk.hub.acked_state(SubscribeRequest(name="prices.A")).stale


# --- what everybody pays for


def test_a_refresh_slows_down_what_its_token_does_not_allow() -> None:
    """A role that lost its short interval loses it on open connections too. A shorter one is not given."""
    talk = ProtocolConnection("prices.>")
    talk.open("prices.A", "prices.*")
    asked = RefreshRequest("t", 1)
    talk.client.refreshed(asked, scope=Scope(("prices.>",)), expires_at=NOW + 60, floor_ms=1000)
    subscriber = talk.subscriber
    assert set(subscriber.exact.values()) | set(subscriber.patterns.values()) == {1000}
    talk.client.refreshed(asked, scope=Scope(("prices.>",)), expires_at=NOW + 60, floor_ms=0)
    assert set(subscriber.exact.values()) == {1000}
    talk.line.frames()
    (ack,) = talk.say(type="subscribe", channels=["prices.B"])
    assert ack["channels"][0]["interval_ms"] == 1000


def test_a_pattern_costs_what_it_matches() -> None:
    """The first is accepted at any size, and then its client has to wait. Exact names cost one frame."""
    talk = ProtocolConnection()
    for number in range(20 * MATCHES_A_FRAME):
        talk.hub.publish(publication(f"prices.{number}", 1))
    talk.open("prices.0")
    (ack,) = [
        frame for frame in talk.say(type="subscribe", channels=["prices.*"]) if frame["type"] == "subscribed"
    ]
    assert ack["channels"][0]["matches"] == 20 * MATCHES_A_FRAME
    (error,) = [frame for frame in talk.say(type="unsubscribe", channels=["prices.*"]) if "code" in frame]
    assert (error["code"], error["retryable"]) == ("rate_limited", True)
    talk.wait(error["retry_after_ms"] / 1000)
    assert "unsubscribed" in kinds(talk.say(type="unsubscribe", channels=["prices.*"]))
    talk.wait(5)
    assert talk.say(type="ping")[0]["type"] == "pong"


# --- more history than the hub keeps --------------------------------------------------------------


def resumable() -> ProtocolConnection:
    """Return a connection whose hub keeps two messages of each channel, after five on one of them."""
    options = ChannelOptions(mode=Mode.STREAM, history_messages=2, history_ms=1 << 50)
    talk = ProtocolConnection("prices.>", hub=make_hub(lambda _: options)[0])
    talk.open("prices.B")
    for seq in range(1, 6):
        talk.hub.publish(publication("prices.A", seq))
    return talk


def subscribe_since(talk: ProtocolConnection, seq: int) -> object:
    """Send a `subscribe` that resumes two channels, of which one is outside the scope, and return the result."""
    since = {name: {"epoch": "e1", "seq": seq} for name in ("prices.A", "orders.A", "prices.C")}
    frame = {"type": "subscribe", "id": 1, "channels": ["prices.A", "orders.A"], "since": since}
    return talk.client.receive(json.dumps(frame), talk.now)


def test_the_shell_is_asked_for_history_that_the_hub_does_not_keep() -> None:
    """It is asked for channels of the frame and the scope only. With its answer all missed messages follow the ack."""
    talk = resumable()
    request = subscribe_since(talk, 1)
    assert isinstance(request, HistoryRequest)
    assert {name: (since.epoch, since.seq) for name, since in request.since.items()} == {
        "prices.A": ("e1", 1)
    }
    assert talk.line.frames() == []
    talk.client.subscribe_with_history(
        request, {"prices.A": [publication("prices.A", seq) for seq in (2, 3)]}, talk.now
    )
    ack, *replay = talk.line.frames()
    assert [channel["recovered"] for channel in ack["channels"]] == [True]
    assert [frame["seq"] for frame in replay] == [2, 3, 4, 5]


def test_without_an_answer_a_resumed_channel_begins_with_a_snapshot() -> None:
    """The broker keeps no more than the hub, or can't be reached."""
    talk = resumable()
    request = subscribe_since(talk, 1)
    assert isinstance(request, HistoryRequest)
    talk.client.subscribe_with_history(request, {}, talk.now)
    ack, snapshot = talk.line.frames()
    assert [channel["recovered"] for channel in ack["channels"]] == [False]
    assert (snapshot["type"], snapshot["seq"]) == ("snapshot", 5)


def test_nobody_is_asked_for_history_that_the_hub_keeps() -> None:
    """The usual resume is answered at once."""
    talk = resumable()
    assert subscribe_since(talk, 3) is None
    assert [frame.get("seq") for frame in talk.line.frames()[1:]] == [4, 5]


def test_history_that_comes_after_the_end_is_ignored() -> None:
    """A connection may be closed while the broker is asked."""
    talk = resumable()
    request = subscribe_since(talk, 1)
    assert isinstance(request, HistoryRequest)
    talk.client.close(Reason.SESSION_REVOKED)
    talk.client.subscribe_with_history(request, {}, talk.now)
    assert talk.line.frames() == []
