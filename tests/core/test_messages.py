"""The frames of relay.v1: clients' frames are parsed strictly, and the server's have exact bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import messages
from relay.core.errors import MalformedError, Reason
from relay.core.messages import Auth, Ping, Refresh, Subscribe, Unknown, Unsubscribe, parse_client_frame
from relay.core.publications import Publication
from tests.support.client_frames import objects, values


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type":"auth","token":"t"}', Auth(token="t")),
        ('{"type":"subscribe","channels":["a","b.*"]}', Subscribe(channels=["a", "b.*"])),
        (
            '{"interval_ms":100,"channels":[],"id":7,"type":"subscribe"}',
            Subscribe(channels=[], id=7, interval_ms=100),
        ),
        ('{"type":"unsubscribe","id":-1,"channels":["a"]}', Unsubscribe(channels=["a"], id=-1)),
        (' {"type" : "ping", "id" : 3 } ', Ping(id=3)),
        ('{"type":"ping","id":null,"new":{"member":[]}}', Ping()),
        ('{"type":"refresh","id":4,"token":"t"}', Refresh(token="t", id=4)),
        ('{"type":"","id":9007199254740991}', Unknown(type="", id=9007199254740991)),
    ],
)
def test_a_clients_frame_is_read_with_its_members_in_any_order(
    text: str, frame: messages.ClientFrame
) -> None:
    """Members come in any order, unknown ones are left alone, and an unknown type is not an error yet."""
    assert parse_client_frame(text) == frame


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ping",
        "null",
        "[]",
        "1",
        '"ping"',
        "{}",
        '{"type":1}',
        '{"type":"ping"',
        '{"type":"ping"}{"type":"ping"}',
        "{'type':'ping'}",
        '{"type":"ping","id":"1"}',
        '{"type":"ping","id":true}',
        '{"type":"ping","id":1.5}',
        '{"type":"ping","id":9007199254740992}',
        '{"type":"ping","id":-99999999999999999999999}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","channels":"a"}',
        '{"type":"subscribe","channels":[1]}',
        '{"type":"subscribe","channels":["\ud800"]}',
        r'{"type":"subscribe","channels":["\ud800"]}',
        '{"type":"subscribe","channels":[],"interval_ms":"100"}',
        '{"type":"unsubscribe","channels":null}',
        '{"type":"auth"}',
        '{"type":"auth","token":["t"]}',
        '{"type":"ping","x":\n"a\nb"}',
        '{"type":"ping","x":' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_what_is_no_frame_is_refused(text: str) -> None:
    """No JSON, no object, no type, or a member of another type than documented: all the same reason."""
    with pytest.raises(MalformedError) as caught:
        parse_client_frame(text)
    assert caught.value.reason is Reason.FRAME_MALFORMED


@given(st.text() | objects | values.map(json.dumps))
def test_no_text_does_anything_else(text: str) -> None:
    """Any text is a frame or malformed, and what was read can be answered in valid UTF-8."""
    try:
        frame = parse_client_frame(text)
    except MalformedError:
        return
    if isinstance(frame, Subscribe | Unsubscribe):
        assert (
            json.loads(messages.unsubscribed(id=frame.id, channels=frame.channels))["type"] == "unsubscribed"
        )
    if isinstance(frame, Unknown):
        answer = messages.error(id=frame.id, code="unknown_type", message=repr(frame.type), retryable=False)
        assert json.loads(answer)["code"] == "unknown_type"


def publication(data: bytes, **members: Any) -> Publication:
    return Publication(channel="prices.A", epoch="e1", seq=5, ts=17, data=data, **members)


def test_data_goes_out_as_it_came() -> None:
    """The publisher's bytes are in the frame unchanged: no digit, space or escape is touched."""
    data = b'{"price" : 1.10000000000000000001,"big":12345678901234567890123,"t":"\\u00e9\xc3\xa9"}'
    assert messages.update(publication(data)) == (
        b'{"type":"update","channel":"prices.A","seq":5,"ts":17,"data":' + data + b"}"
    )
    assert messages.update(publication(b"1", source_ts=3)) == (
        b'{"type":"update","channel":"prices.A","seq":5,"ts":17,"source_ts":3,"data":1}'
    )
    assert messages.snapshot(publication(data)) == (
        b'{"type":"snapshot","channel":"prices.A","epoch":"e1","seq":5,"ts":17,"data":' + data + b"}"
    )


@given(
    values.map(lambda value: json.dumps(value).encode()).filter(
        lambda text: b"NaN" not in text and b"Inf" not in text
    )
)
def test_frames_around_data_are_json(data: bytes) -> None:
    """For any JSON data the frame is JSON that contains it."""
    for frame in (messages.update(publication(data)), messages.snapshot(publication(data))):
        assert json.loads(frame)["data"] == json.loads(data)


def test_what_the_relay_says() -> None:
    """Each frame has its documented members, and no id where none was sent."""
    ack = messages.ChannelAck(
        channel="a", mode=messages.Mode.LATEST, interval_ms=0, epoch="e", seq=4, state="live"
    )
    pattern = messages.PatternAck(channel="a.*", mode=messages.Mode.LATEST, interval_ms=0, matches=2)
    rejection = messages.Rejection(channel="b", code="forbidden", message="No.")
    said = [
        messages.welcome(connection="c", ts=1, expires_at=2, frames_per_s=10),
        messages.subscribed(id=None, channels=[ack, pattern], rejected=[rejection]),
        messages.unsubscribed(id=2, channels=["a"]),
        messages.pong(id=3, ts=4),
        messages.heartbeat(ts=5),
        messages.error(code="rate_limited", message="Wait.", retryable=True, retry_after_ms=100),
    ]
    assert [json.loads(frame) for frame in said] == [
        {
            "type": "welcome",
            "connection": "c",
            "protocol": "relay.v1",
            "ts": 1,
            "heartbeat_ms": 5000,
            "expires_at": 2,
            "limits": {"channels": 1024, "frame_bytes": 16384, "frames_per_s": 10},
        },
        {
            "type": "subscribed",
            "channels": [
                {"channel": "a", "mode": "latest", "interval_ms": 0, "epoch": "e", "seq": 4}
                | {"state": "live", "recovered": False},
                {"channel": "a.*", "mode": "latest", "interval_ms": 0, "matches": 2},
            ],
            "rejected": [{"channel": "b", "code": "forbidden", "message": "No."}],
        },
        {"type": "unsubscribed", "id": 2, "channels": ["a"]},
        {"type": "pong", "id": 3, "ts": 4},
        {"type": "heartbeat", "ts": 5},
        {
            "type": "error",
            "code": "rate_limited",
            "message": "Wait.",
            "retryable": True,
            "retry_after_ms": 100,
        },
    ]
