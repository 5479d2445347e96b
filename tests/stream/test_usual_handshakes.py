"""The relay's own answer to a usual handshake: byte for byte the library's, or left to the library."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from relay.core.messages import PROTOCOL
from relay.stream.handshake import WebSocketHandshake, _Accepted, usual_request

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
    return PROTOCOL if PROTOCOL in list(offered) else None  # type: ignore[call-overload]  # a list of texts


def answer(head: bytes, *, by_library: bool) -> tuple[bytes, str | None, Response | None]:
    """Return the bytes of the answer without its date, the subprotocol, and the answer."""
    protocol = ServerProtocol(select_subprotocol=select)  # type: ignore[arg-type]  # the listener's has another object first
    protocol.receive_data(head)
    (request,) = protocol.events_received()
    if by_library:
        response: Response | None = protocol.accept(request)  # type: ignore[arg-type]  # it is a request
    else:
        handshake = WebSocketHandshake(request, protocol)  # type: ignore[arg-type]  # it is a request
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


HEADS = st.builds(
    lambda line, fields, end: (
        b"\r\n".join([line, *(name + b":" + value for name, value in fields), b"", b""]) + end
    ),
    st.sampled_from(
        [
            b"GET /ws/prices?channels=a,b HTTP/1.1",
            b"GET /\xe9 HTTP/1.1",
            b"GET  / HTTP/1.1",
            b"GET /\x01 HTTP/1.1",
            b"get / HTTP/1.1",
            b"GET / HTTP/2",
            b"GET /",
        ]
    )
    | st.binary(max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"Host", b"hOST", b"X-A", b"Content-Length", b"Transfer-Encoding", b"a b", b"", b"\xe9"]
            ),
            st.sampled_from(
                [b" a", b"", b" \t\xe9 \t", b"0", b" chunked", b"a\nb: c", b"a\rb", b"\0", b"a:b", b"\x7f"]
            )
            | st.binary(max_size=4),
        ),
        max_size=6,
    ),
    st.sampled_from([b"", b"\r\n", b"x", b"GET / HTTP/1.1\r\n\r\n"]),
)


@given(head=HEADS, at=st.integers(0, 60), piece=st.binary(max_size=3), cut=st.integers(0, 2))
@example(head=head_of([("Host", "relay.example"), *USUAL.items()]), at=0, piece=b"", cut=0)
@example(head=head_of([("A", str(number)) for number in range(200)]), at=0, piece=b"", cut=0)
def test_a_head_is_read_as_the_library_reads_it(head: bytes, at: int, piece: bytes, cut: int) -> None:
    """For any bytes: what is read without the library, the library reads in the same way, and wants no more of it."""
    data = head[:at] + piece + head[at + cut :]
    if (request := usual_request(data)) is None:
        return
    protocol = ServerProtocol()
    protocol.receive_data(data)
    (read,) = protocol.events_received()
    assert isinstance(read, Request)
    assert read == request
    assert list(read.headers.raw_items()) == list(request.headers.raw_items())
    assert not protocol.reader.buffer


def test_a_browsers_head_is_read_without_the_library() -> None:
    """It is one that the library would read line by line. Less or more than it is the library's."""
    head = head_of([("Host", "relay.example"), ("Cookie", "a=b; c=d"), *USUAL.items()])
    request = usual_request(head)
    assert request is not None
    assert (request.method, request.path, request.headers["cookie"]) == ("GET", "/ws/prices", "a=b; c=d")
    assert usual_request(head[:-1]) is usual_request(head + b"\x81") is None


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
