"""Each state of an HTTP connection has a timer: a client that does nothing more is cut off in all of them.

The listener runs in this process, with clocks that run faster.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from relay.core.errors import MalformedError, Reason
from relay.net.write_stalls import WriteStalls
from relay.web import bodies
from relay.web.bounded_protocol import BoundedHttp, ConnectionOptions
from relay.web.uvicorn_runner import HttpServer
from tests.support.raw_http import exchange, head
from tests.support.raw_websocket import until

HOST = ("Host", "x")
UPGRADE = [
    HOST,
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
ANSWERED = head("GET", "/", [HOST])
LARGE = head("GET", "/large", [HOST])


async def small(_request: Request) -> Response:
    """Answer without reading the body."""
    return Response("small")


async def large(_request: Request) -> Response:
    """Answer with more than the kernel takes at once."""
    return Response(b"x" * 10_000_000)


async def read(request: Request) -> Response:
    """Read the body as the relay's routes do."""
    try:
        await bodies.read_body(request, max_bytes=1000, too_large=Reason.REQUEST_MALFORMED)
    except MalformedError:
        return Response(status_code=400)
    return Response("read")


async def socket_route(websocket: WebSocket) -> None:
    """Accept each handshake, flood the client, and never end."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text("x" * 65_536)


async def refuse(websocket: WebSocket) -> None:
    """Refuse each handshake."""
    await websocket.close()


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A listener with WebSockets that is in a hurry."""
    monkeypatch.setattr(BoundedHttp, "head_within_s", 0.3)
    monkeypatch.setattr(WriteStalls, "check_every_s", 0.05)
    monkeypatch.setattr(bodies, "BODY_WITHIN_S", 0.3)
    app = Starlette(
        routes=[
            Route("/", small, methods=["GET", "POST"]),
            Route("/large", large),
            Route("/read", read, methods=["POST"]),
            WebSocketRoute("/socket", socket_route),
            WebSocketRoute("/refuse", refuse),
        ]
    )
    sock = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, sock, ConnectionOptions(keepalive_s=0.3), max_frame_bytes=1000)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        try:
            yield sock.getsockname()[1]
        finally:
            server.stop()


STATES = {
    "nothing sent": b"",
    "half a head": ANSWERED[:-2],
    "a body that is awaited": head("POST", "/read", [HOST, ("Content-Length", "10")]),
    "half of a body that is awaited": head("POST", "/read", [HOST, ("Content-Length", "10")]) + b"12345",
    "an answer without the body that was announced": head("POST", "/", [HOST, ("Content-Length", "10")]),
    "half of a chunk after the answer": head("POST", "/", [HOST, ("Transfer-Encoding", "chunked")])
    + b"5\r\nab",
    "waiting to be told to continue": head(
        "POST", "/read", [HOST, ("Content-Length", "10"), ("Expect", "100-continue")]
    ),
    "between two requests": ANSWERED,
    "half a head after an answer": ANSWERED + ANSWERED[:-2],
    "pipelined, and half a head": ANSWERED * 20 + ANSWERED[:-2],
    "a refused head": b"garbage\r\n\r\n",
    "another protocol offered": head("GET", "/", [HOST, ("Connection", "Upgrade"), ("Upgrade", "h2c")]),
    "a handshake with a body": head("GET", "/socket", [*UPGRADE, ("Content-Length", "10")]),
    "a handshake with a chunked body": head("GET", "/socket", [*UPGRADE, ("Transfer-Encoding", "chunked")]),
    "a handshake without a key": head("GET", "/socket", UPGRADE[:-1]),
    "a handshake after a request": ANSWERED + head("GET", "/socket", UPGRADE),
    "a refused handshake": head("GET", "/refuse", UPGRADE),
}
"""Each state with the bytes that lead to it. After them the client reads all, and sends nothing."""

DEAF = {
    "an answer that is not read": LARGE,
    "pipelined answers that are not read": LARGE * 50,
    "small pipelined answers that are not read": ANSWERED * 10_000,
    "the last answer is not read": head("GET", "/large", [HOST, ("Connection", "close")]),
    "a WebSocket that is not read": head("GET", "/socket", UPGRADE),
}
"""The same, for a client that reads nothing."""


@pytest.mark.parametrize("sent", STATES.values(), ids=STATES)
async def test_a_client_that_sends_nothing_more_is_cut_off(port: int, sent: bytes) -> None:
    """The connection ends in time, whatever was sent before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
    writer.close()


@pytest.mark.parametrize("sent", DEAF.values(), ids=DEAF)
async def test_a_client_that_reads_nothing_is_cut_off(
    port: int, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection and what the kernel holds for it are given back, and nothing is logged as an error."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(sock, sent)
                await until(lambda: bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))  # ECONNRESET
    assert (
        await exchange(port, ANSWERED)
    ).status == 200  # by then the requests of the other connection have ended
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([*UPGRADE, ("Content-Length", "10")], b"400"),
        ([*UPGRADE, ("Transfer-Encoding", "chunked")], b"400"),
        (UPGRADE[:-1], b"400"),
        ([*UPGRADE[1:]], b"400"),
        ([*UPGRADE, HOST], b"400"),
    ],
)
async def test_what_is_no_handshake_gets_400(port: int, fields: list[tuple[str, str]], status: bytes) -> None:
    """A handshake with a body, without a key, or without exactly one Host is answered, and in the relay's form."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("GET", "/socket", fields))
    answer = await reader.read()
    assert answer.split()[1] == status
    assert b'"code":"invalid_request"' in answer
    writer.close()
