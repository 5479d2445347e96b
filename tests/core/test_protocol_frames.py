"""One connection: its other frames, their rate limit, and its end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.closes import Close, CloseCode
from relay.core.errors import Reason
from relay.core.protocol import FRAME_BURST, RefreshRequest, State
from relay.core.scope import Scope
from tests.support.client_frames import objects, values
from tests.support.hub import flush, publication
from tests.support.protocol_client import MS, NOW, ProtocolConnection, kinds

# --- other frames ---------------------------------------------------------------------------------


def test_ping_is_answered_with_the_clock() -> None:
    """`pong` has the id, if there was one, and the server's time in Unix milliseconds."""
    talk = ProtocolConnection()
    assert talk.say(type="ping", id=3) == [{"type": "pong", "id": 3, "ts": MS}]
    assert talk.say(type="ping") == [{"type": "pong", "ts": MS}]


def test_an_unknown_type_is_an_error_and_not_the_end() -> None:
    """A newer client learns that this relay can't do it, and goes on."""
    talk = ProtocolConnection()
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
    """So does `auth`, which may be the first frame only. After that nothing is accepted or written."""
    talk = ProtocolConnection()
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
    talk = ProtocolConnection()
    talk.open("prices.A")
    ends = [close for text in texts if (close := talk.client.receive(text, NOW)) is not None]
    assert len(ends) <= 1
    assert set(kinds(talk.line.frames())) <= {"subscribed", "unsubscribed", "pong", "error"}
    assert (talk.client.state is State.CLOSED) == bool(ends)


# --- how fast -------------------------------------------------------------------------------------


def test_too_many_frames_are_refused_and_then_the_end() -> None:
    """Twenty at once are accepted. The next are ignored, and a client that continues is closed with 4029."""
    talk = ProtocolConnection()
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
    talk = ProtocolConnection()
    for _ in range(300):
        assert kinds(talk.say(type="ping")) == ["pong"]
        talk.wait(0.1001)


@pytest.mark.parametrize("control", [True, False])
def test_who_heeds_the_refusal_is_not_closed(control: bool) -> None:
    """Frames that were refused count against a client only in a row: each one that is let through ends the row."""
    talk = ProtocolConnection()
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
    talk = ProtocolConnection()
    closes = [talk.client.control_frame(NOW) for _ in range(2 * FRAME_BURST + 1)]
    assert closes[:-1] == [None] * (2 * FRAME_BURST)
    assert closes[-1] is not None
    assert closes[-1].code == CloseCode.RATE_LIMITED
    assert kinds(talk.line.frames()) == ["error"] * FRAME_BURST


# --- the end --------------------------------------------------------------------------------------


def test_a_connection_ends_at_its_age_limit() -> None:
    """It is warned a minute before, and at that moment, not before, it closes with 4001."""
    talk = ProtocolConnection()
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
    assert talk.hub._subscriptions._channels == {}


def test_a_refresh_goes_on_with_less_or_the_same() -> None:
    """A new token moves the end; what falls out of its scope is unsubscribed with a frame, and nothing is gained."""
    talk = ProtocolConnection("prices.>")
    talk.open("prices.A", "prices.B")
    asked = talk.client.receive('{"type":"refresh","id":4,"token":"t"}', NOW)
    assert isinstance(asked, RefreshRequest)
    assert "t" not in repr(asked).replace("RefreshRequest", "")
    talk.client.tick(NOW + 3541)
    talk.line.frames()
    talk.client.refreshed(asked, scope=Scope(("prices.A", "depth.>")), expires_at=NOW + 7200, floor_ms=0)
    assert talk.line.frames() == [
        {"type": "unsubscribed", "channels": ["prices.B"]},
        {"type": "refreshed", "id": 4, "expires_at": MS + 7_200_000},
    ]
    assert talk.client.next_deadline() == NOW + 7140
    (ack,) = talk.say(type="subscribe", channels=["depth.A", "prices.B"])
    assert [entry["code"] for entry in ack["rejected"]] == ["forbidden", "forbidden"]


def test_a_refused_refresh_changes_nothing() -> None:
    """It is an error with the coarse code; the old end stands."""
    talk = ProtocolConnection()
    talk.open("prices.A")
    asked = talk.client.receive('{"type":"refresh","id":4,"token":"t"}', NOW)
    assert isinstance(asked, RefreshRequest)
    talk.client.refresh_refused(asked, reason=Reason.TOKEN_REPLAYED)
    (error,) = talk.line.frames()
    assert (error["type"], error["id"], error["code"]) == ("error", 4, "invalid_token")
    assert talk.client.next_deadline() == NOW + 3540


def test_a_restart_is_announced() -> None:
    """The client is told when to reconnect. After the close nothing is written."""
    talk = ProtocolConnection()
    talk.open("prices.A")
    talk.client.announce_restart(delay_ms=1834)
    assert talk.line.frames() == [{"type": "reconnect", "delay_ms": 1834}]
    talk.client.close(Reason.SERVER_RESTARTING)
    talk.client.announce_restart(delay_ms=1)
    assert talk.line.frames() == []
