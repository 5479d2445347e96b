"""The relay's own answer to a usual handshake: byte for byte the library's, or left to the library."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.http11 import Response
from websockets.server import ServerProtocol

from relay.core.messages import PROTOCOL
from relay.stream.handshake import WebSocketHandshake, _Accepted

USUAL = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "relay.v1, bearer.eyJh.eyJi.c-_",
}
OTHER_VALUES = {
    "Upgrade": ["WebSocket", "websocket, h2c", "h2c", ""],
    "Connection": ["keep-alive, Upgrade", "upgrade", "keep-alive", "Upgrade,", "close, upgrade", ""],
    "Sec-WebSocket-Key": [
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "AA==",
        "dGhlIHNhbXBsZSBub25j ZQ==",
        "",
    ],
    "Sec-WebSocket-Version": ["8", "13, 8", "013", ""],
    "Sec-WebSocket-Protocol": [
        "relay.v1",
        "chat",
        "relay.v1,bearer.a",
        "relay.v1, relay.v1",
        "a b",
        "bearer.a, ",
        "é",
        "",
    ],
    "Sec-WebSocket-Extensions": ["permessage-deflate; client_max_window_bits", "x;;"],
}
EDITS = st.lists(
    st.sampled_from([(name, value) for name, values in OTHER_VALUES.items() for value in values])
    | st.sampled_from([(name, None) for name in (*USUAL, "Sec-WebSocket-Extensions")]),
    max_size=3,
)


def select(_protocol: ServerProtocol, offered: object) -> str | None:
    """Select as the listener does."""
    return PROTOCOL if PROTOCOL in list(offered) else None  # type: ignore[call-overload]


def answer(head: bytes, *, by_library: bool) -> tuple[bytes, str | None, Response | None]:
    """Return the bytes of the answer without its date, the subprotocol, and the answer."""
    protocol = ServerProtocol(select_subprotocol=select)  # type: ignore[arg-type]  # the listener's has another object first
    protocol.receive_data(head)
    (request,) = protocol.events_received()
    if by_library:
        response: Response | None = protocol.accept(request)  # type: ignore[arg-type]  # it is a request
    else:
        handshake = WebSocketHandshake(request, protocol)  # type: ignore[arg-type]
        handshake.check()
        response = handshake.response
    if response is None:
        return b"", None, None
    return re.sub(rb"Date: [^\r]*", b"Date:", response.serialize()), protocol.subprotocol, response


def head_of(fields: list[tuple[str, str]], line: str = "GET /ws/prices HTTP/1.1") -> bytes:
    """Return a request head."""
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in fields), "", ""]).encode("iso-8859-1")


@given(
    edits=EDITS,
    doubled=st.sampled_from(["", *USUAL]),
    line=st.sampled_from(["GET / HTTP/1.1", "POST / HTTP/1.1", "GET / HTTP/1.0"]),
)
@example(edits=[], doubled="", line="GET / HTTP/1.1")
def test_the_answer_is_the_librarys(edits: list[tuple[str, str | None]], doubled: str, line: str) -> None:
    """For any handshake: its own answer is what the library would say, and so is the subprotocol."""
    fields = dict(USUAL)
    for name, value in edits:
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value
    listed = [("Host", "relay.example"), *fields.items()]
    if doubled in fields:
        listed.append((doubled, fields[doubled]))
    own = answer(head_of(listed, line), by_library=False)
    assert own[:2] == answer(head_of(listed, line), by_library=True)[:2]


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "upgrade"])
@pytest.mark.parametrize("offer", [None, "relay.v1", "relay.v1, bearer.eyJh.eyJi.c-_"])
def test_a_browsers_handshake_is_answered_without_the_library(connection: str, offer: str | None) -> None:
    """Chromium and Safari, Firefox, and nginx write these; the date is the present one."""
    fields = USUAL | {"Connection": connection, "Sec-WebSocket-Protocol": offer or ""}
    if offer is None:
        del fields["Sec-WebSocket-Protocol"]
    _, subprotocol, response = answer(head_of([("Host", "relay.example"), *fields.items()]), by_library=False)
    assert isinstance(response, _Accepted)
    assert subprotocol == (PROTOCOL if offer else None)
    sent = re.search(rb"Date: ([^\r]*)", response.serialize())
    assert sent is not None
    assert abs(parsedate_to_datetime(sent[1].decode()).timestamp() - time.time()) < 60
