"""One connection's state machine: what each frame is answered with, in which order, and how it ends."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.closes import Close, CloseCode
from relay.core.errors import Reason
from relay.core.events import Action
from relay.core.hub import Hub
from relay.core.messages import MAX_CHANNELS_A_CONNECTION, MAX_CHANNELS_A_FRAME
from relay.core.protocol import FRAME_BURST, FRAMES_PER_S, ClientProtocol, RefreshAsked, State, Terms
from relay.core.scope import Scope
from tests.core.test_hub import Line, flush, make_hub, publication
from tests.core.test_messages import objects, values

NOW = 1_795_319_000.25
MS = 1_795_319_000_250


class Talk:
    """A connection as its client sees it, and what was reported of it."""

    def __init__(
        self, *patterns: str, hub: Hub | None = None, floor_ms: int = 0, age_s: float = 3600
    ) -> None:
        self.hub = hub or make_hub()[0]
        self.line = Line()
        self.subscriber = self.hub.join(self.line)
        self.reports: list[tuple[Action, list[str], Reason | None]] = []
        self.now = NOW
        terms = Terms(
            connection="c1",
            scope=Scope(patterns or ("prices.>",)),
            expires_at=NOW + age_s,
            floor_ms=floor_ms,
        )
        self.client = ClientProtocol(
            hub=self.hub, subscriber=self.subscriber, terms=terms, report=self.report, now=NOW
        )

    def report(self, action: Action, channels: Sequence[str], reason: Reason | None) -> None:
        self.reports.append((action, list(channels), reason))

    def open(self, *asked: str) -> list[dict[str, Any]]:
        self.client.open(asked=asked, interval_ms=0, now=self.now)
        return self.line.frames()

    def say(self, **frame: Any) -> list[dict[str, Any]]:
        """Send one frame, which must not end the connection, and return what came back."""
        assert self.client.receive(json.dumps(frame), self.now) is None
        return self.line.frames()

    def wait(self, seconds: float) -> None:
        self.now += seconds


def kinds(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


# --- the beginning --------------------------------------------------------------------------------


def test_welcome_comes_first_with_the_terms() -> None:
    """The first frame names the connection, the server's clock and when it will end, in milliseconds."""
    welcome = Talk().open("prices.A")[0]
    assert welcome["type"] == "welcome"
    assert (welcome["connection"], welcome["ts"], welcome["expires_at"]) == ("c1", MS, MS + 3_600_000)
    assert welcome["limits"]["frames_per_s"] == FRAMES_PER_S


def test_what_the_url_asks_for_wins() -> None:
    """Channels of the URL are subscribed at once, whatever the token names."""
    talk = Talk("prices.A", "prices.B")
    assert [ack["channel"] for ack in talk.open("prices.B")[1]["channels"]] == ["prices.B"]
    assert talk.subscriber.exact == {"prices.B": 0}


def test_a_token_that_names_channels_subscribes_to_them() -> None:
    """Without channels in the URL the token's exact ones count; its patterns are a permission, not a wish."""
    talk = Talk("prices.A", "prices.B", "depth.*")
    assert [ack["channel"] for ack in talk.open()[1]["channels"]] == ["prices.A", "prices.B"]
    assert talk.subscriber.patterns == {}


def test_nobody_waits_in_silence() -> None:
    """When neither names a channel, `welcome` is followed by an error, and the connection stays open."""
    talk = Talk("prices.>")
    frames = talk.open()
    assert kinds(frames) == ["welcome", "error"]
    assert frames[1]["code"] == "nothing_subscribed"
    assert kinds(talk.say(type="subscribe", channels=["prices.A"])) == ["subscribed"]


def test_a_connection_that_was_closed_before_it_opened_says_nothing() -> None:
    """A client can be gone while its token is looked up; then nothing may be written."""
    talk = Talk()
    talk.client.close(Reason.CLIENT_CLOSED)
    assert talk.open("prices.A") == []
    assert talk.hub._subscriptions._feeds == {}


# --- subscriptions --------------------------------------------------------------------------------


def test_the_ack_comes_before_any_data() -> None:
    """First the ack of all channels, then their snapshots, then updates."""
    talk = Talk()
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
    """The ack says what the hub found when it last looked for silent channels."""
    talk = Talk()
    talk.hub.publish(publication("prices.A", 1, ts=MS))
    talk.hub.sweep(now_ms=MS + silent_ms)
    assert talk.open("prices.A")[1]["channels"][0]["state"] == state


def test_silence_is_told_and_so_is_its_end() -> None:
    """A subscriber hears once that a channel fell silent, and after its next value that it is live again."""
    talk = Talk()
    talk.hub.publish(publication("prices.A", 1, ts=MS))
    talk.open("prices.A")
    for _ in range(2):
        talk.hub.sweep(now_ms=MS + 5001)
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
def test_an_interval_is_granted_as_a_lane(asked: int, floor: int, granted: int) -> None:
    """The ack names the lane: the next slower one that exists, and no faster than the token and endpoint allow."""
    talk = Talk(floor_ms=floor)
    talk.open("prices.A")
    (ack,) = talk.say(type="subscribe", channels=["prices.B", "prices.*"], interval_ms=asked)
    assert [entry["interval_ms"] for entry in ack["channels"]] == [granted, granted]


def test_a_channel_without_a_value_is_stale_at_seq_0() -> None:
    """Subscribing ahead of the first publication is fine."""
    ack = Talk().open("prices.A")[1]["channels"][0]
    assert (ack["epoch"], ack["seq"], ack["state"]) == ("", 0, "stale")


def test_each_rejected_channel_has_its_reason() -> None:
    """What is malformed or outside the scope is named in the ack and in the audit log; the rest is subscribed."""
    talk = Talk("prices.>")
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
    """The ack shows the channel again; its data goes on as it was."""
    talk = Talk()
    talk.hub.publish(publication("prices.A", 1))
    talk.open("prices.A")
    frames = talk.say(type="subscribe", channels=["prices.A"])
    assert kinds(frames) == ["subscribed"]
    assert frames[0]["channels"][0]["seq"] == 1
    assert "id" not in frames[0]


def test_a_frame_names_256_channels_at_most() -> None:
    """The rest is left out, and the ack says from which one on."""
    talk = Talk()
    names = [f"prices.{number}" for number in range(MAX_CHANNELS_A_FRAME + 3)]
    (ack,) = talk.say(type="subscribe", channels=names)
    assert [entry["channel"] for entry in ack["channels"]] == names[:MAX_CHANNELS_A_FRAME]
    assert [(entry["channel"], entry["code"]) for entry in ack["rejected"]] == [
        (names[MAX_CHANNELS_A_FRAME], "too_many_channels")
    ]
    assert "3 in all" in ack["rejected"][0]["message"]


def test_a_connection_has_1024_subscriptions_at_most() -> None:
    """Patterns count as one; one more is refused, one that is there already is not, and room comes back."""
    talk = Talk()
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
    talk = Talk()
    talk.hub.publish(publication("prices.A", 1))
    talk.open("prices.A", "prices.B")
    assert talk.say(type="unsubscribe", id=2, channels=["prices.A", "prices.C", "prices.A", ""]) == [
        {"type": "unsubscribed", "id": 2, "channels": ["prices.A"]}
    ]
    talk.hub.publish(publication("prices.A", 2))
    flush(talk.hub)
    assert talk.line.frames() == []
    assert kinds(talk.say(type="subscribe", channels=["prices.A"])) == ["subscribed", "snapshot"]


# --- other frames ---------------------------------------------------------------------------------


def test_ping_is_answered_with_the_clock() -> None:
    """`pong` has the id, if there was one, and the server's time in Unix milliseconds."""
    talk = Talk()
    assert talk.say(type="ping", id=3) == [{"type": "pong", "id": 3, "ts": MS}]
    assert talk.say(type="ping") == [{"type": "pong", "ts": MS}]


def test_an_unknown_type_is_an_error_and_not_the_end() -> None:
    """A newer client learns that this relay can't do it, and goes on."""
    talk = Talk()
    (error,) = talk.say(type="teleport", id=4, token="t" * 5000)
    assert (error["type"], error["id"], error["code"], error["retryable"]) == (
        "error",
        4,
        "unknown_type",
        False,
    )
    (error,) = talk.say(type="\x00<b>" * 50)
    assert len(error["message"]) < 300


@pytest.mark.parametrize("text", ["", "hello", "[]", '{"type":1}', '{"type":"auth","token":"t"}'])
def test_what_is_not_a_message_ends_the_connection(text: str) -> None:
    """So does `auth`, which is a first frame only. From then on nothing is taken or written."""
    talk = Talk()
    talk.open("prices.A")
    close = talk.client.receive(text, NOW)
    assert close == Close(code=CloseCode.POLICY_VIOLATION, text="malformed", reason=Reason.FRAME_MALFORMED)
    assert talk.client.state is State.CLOSED
    talk.hub.publish(publication("prices.A", 1))
    flush(talk.hub)
    assert talk.client.receive('{"type":"ping"}', NOW) is None
    assert talk.client.control_frame(NOW) is None
    assert talk.client.tick(NOW + 100) is None
    assert talk.line.frames() == []


@given(st.lists(st.text() | objects | values.map(json.dumps), max_size=30))
def test_any_frames_in_any_order_do_no_harm(texts: list[str]) -> None:
    """Each text is answered, ignored or ends the connection: nothing raises, and all that goes out is JSON."""
    talk = Talk()
    talk.open("prices.A")
    ends = [close for text in texts if (close := talk.client.receive(text, NOW)) is not None]
    assert len(ends) <= 1
    assert set(kinds(talk.line.frames())) <= {"subscribed", "unsubscribed", "pong", "error"}
    assert (talk.client.state is State.CLOSED) == bool(ends)


# --- how fast -------------------------------------------------------------------------------------


def test_too_many_frames_are_refused_and_then_the_end() -> None:
    """Twenty at once are fine. The next are not looked at, and who goes on regardless is closed with 4029."""
    talk = Talk()
    for _ in range(FRAME_BURST):
        assert kinds(talk.say(type="ping")) == ["pong"]
    for _ in range(FRAME_BURST):
        (error,) = talk.say(type="subscribe", channels=["prices.A"])
        assert (error["code"], error["retryable"], error["retry_after_ms"]) == ("rate_limited", True, 101)
    assert talk.subscriber.exact == {}
    close = talk.client.receive('{"type":"ping"}', NOW)
    assert isinstance(close, Close)
    assert (close.code, close.reason) == (CloseCode.RATE_LIMITED, Reason.FRAMES_TOO_FAST)
    assert talk.line.frames() == []


def test_ten_frames_a_second_go_on_for_ever() -> None:
    """At the rate itself nothing is ever refused."""
    talk = Talk()
    for _ in range(300):
        assert kinds(talk.say(type="ping")) == ["pong"]
        talk.wait(0.1001)


@pytest.mark.parametrize("control", [True, False])
def test_who_heeds_the_refusal_is_not_closed(control: bool) -> None:
    """Frames that were refused count against a client only in a row: each one that is let through ends the row."""
    talk = Talk()
    for _ in range(FRAME_BURST):
        talk.client.control_frame(talk.now)
    for _ in range(100):
        assert talk.client.control_frame(talk.now) is None
        assert kinds(talk.line.frames()) == ["error"]
        talk.wait(0.10001)
        if control:
            assert talk.client.control_frame(talk.now) is None
        else:
            talk.say(type="ping")
        talk.line.frames()


def test_control_frames_are_counted_like_messages() -> None:
    """Pings and pongs of the WebSocket layer take from the same bucket, up to the end."""
    talk = Talk()
    closes = [talk.client.control_frame(NOW) for _ in range(2 * FRAME_BURST + 1)]
    assert closes[:-1] == [None] * (2 * FRAME_BURST)
    assert closes[-1] is not None
    assert closes[-1].code == CloseCode.RATE_LIMITED
    assert kinds(talk.line.frames()) == ["error"] * FRAME_BURST


# --- the end --------------------------------------------------------------------------------------


def test_a_connection_ends_at_its_age_limit() -> None:
    """It is warned a minute before, and at that moment, not before, it closes with 4001."""
    talk = Talk()
    talk.open("prices.A")
    assert talk.client.next_deadline() == NOW + 3540
    assert talk.client.tick(NOW + 3540) is None
    assert talk.line.frames() == [{"type": "token_expiring", "expires_in_ms": 60_000}]
    assert talk.client.next_deadline() == NOW + 3600
    assert talk.client.tick(NOW + 3599.999) is None
    close = talk.client.tick(NOW + 3600)
    assert close == Close(
        code=CloseCode.TOKEN_EXPIRED, text="token_expired", reason=Reason.CONNECTION_EXPIRED
    )
    assert talk.hub._subscribers == {}
    assert talk.hub._subscriptions._feeds == {}


def test_a_refresh_goes_on_with_less_or_the_same() -> None:
    """A new token moves the end; what falls out of its scope is unsubscribed with a frame, and nothing is gained."""
    talk = Talk("prices.>")
    talk.open("prices.A", "prices.B")
    asked = talk.client.receive('{"type":"refresh","id":4,"token":"t"}', NOW)
    assert isinstance(asked, RefreshAsked)
    assert "t" not in repr(asked).replace("RefreshAsked", "")
    talk.client.tick(NOW + 3541)
    talk.line.frames()
    talk.client.refreshed(asked, scope=Scope(("prices.A", "depth.>")), expires_at=NOW + 7200)
    assert talk.line.frames() == [
        {"type": "unsubscribed", "channels": ["prices.B"]},
        {"type": "refreshed", "id": 4, "expires_at": MS + 7_200_000},
    ]
    assert talk.client.next_deadline() == NOW + 7140
    (ack,) = talk.say(type="subscribe", channels=["depth.A", "prices.B"])
    assert [entry["code"] for entry in ack["rejected"]] == ["forbidden", "forbidden"]


def test_a_refused_refresh_changes_nothing() -> None:
    """It is an error with the coarse code; the old end stands."""
    talk = Talk()
    talk.open("prices.A")
    asked = talk.client.receive('{"type":"refresh","id":4,"token":"t"}', NOW)
    assert isinstance(asked, RefreshAsked)
    talk.client.refresh_refused(asked, reason=Reason.TOKEN_REPLAYED)
    (error,) = talk.line.frames()
    assert (error["type"], error["id"], error["code"]) == ("error", 4, "invalid_token")
    assert talk.client.next_deadline() == NOW + 3540


def test_a_restart_is_announced() -> None:
    """The client learns when to come back; after the close nothing is said."""
    talk = Talk()
    talk.open("prices.A")
    talk.client.announce_restart(delay_ms=1834)
    assert talk.line.frames() == [{"type": "reconnect", "delay_ms": 1834}]
    talk.client.close(Reason.SERVER_RESTARTING)
    talk.client.announce_restart(delay_ms=1)
    assert talk.line.frames() == []
