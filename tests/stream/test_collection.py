"""A connection that is over is freed by reference counting, and leaves nothing to the cycle collector."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from relay.core.closes import close_for
from relay.core.errors import Reason
from relay.net.admission import AdmissionQueue
from relay.stream.connection import StreamConnection
from relay.stream.handshake import WebSocketHandshake, refusal_response


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Switch the cycle collector off, so that only reference counting frees objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Listener:
    """The library's server with stream connections. Each of them tells when it is freed."""

    def __init__(self) -> None:
        self.freed: list[asyncio.Event] = []
        self.arrived = asyncio.Event()

    def make(self, *arguments: Any, **options: Any) -> ServerConnection:
        connection = StreamConnection(
            *arguments,
            on_made=self._came,
            on_lost=lambda _connection: None,
            on_refused=lambda _connection, _refusal: None,
            accept_queue=AdmissionQueue(),
            closing_queue=AdmissionQueue(),
            **options,
        )
        self.freed.append(asyncio.Event())
        weakref.finalize(connection, self.freed[-1].set)
        return connection

    def _came(self, _connection: StreamConnection) -> None:
        self.arrived.set()

    async def handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, StreamConnection)
        connection.forget_handshake()
        try:
            while True:
                if await connection.recv() == "end":
                    connection.end(close_for(Reason.SESSION_REVOKED))
        except ConnectionClosed:
            return

    async def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, StreamConnection)
        if request.path == "/refused":
            return connection.respond(403, "no")
        handshake = WebSocketHandshake(request, connection.protocol)
        refusal = handshake.check()
        return refusal_response(refusal) if refusal else handshake.response


async def _client_closes(port: int, _listener: Listener) -> None:
    async with connect(f"ws://127.0.0.1:{port}/"):
        pass


async def _server_ends(port: int, _listener: Listener) -> None:
    async with connect(f"ws://127.0.0.1:{port}/") as client:
        await client.send("end")
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def _breaks_the_protocol(port: int, _listener: Listener) -> None:
    async with connect(f"ws://127.0.0.1:{port}/") as client:
        client.transport.write(b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def _link_is_cut(port: int, _listener: Listener) -> None:
    client = await connect(f"ws://127.0.0.1:{port}/")
    client.transport.abort()
    await client.wait_closed()


async def _is_refused(port: int, _listener: Listener) -> None:
    with pytest.raises(InvalidStatus):
        await connect(f"ws://127.0.0.1:{port}/refused")


async def _is_malformed(port: int, _listener: Listener) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    )  # no upgrade: the library raises, and its error is read
    assert (await reader.read()).startswith(b"HTTP/1.1 426")
    writer.close()
    await writer.wait_closed()


async def _never_asks(port: int, listener: Listener) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await listener.arrived.wait()
    writer.close()
    await writer.wait_closed()


def _serve(listener: Listener) -> Any:
    return serve(
        listener.handle,
        "127.0.0.1",
        0,
        create_connection=listener.make,  # type: ignore[arg-type]  # documented as a factory
        process_request=listener.process_request,
        compression=None,
        ping_interval=None,
    )


def _port(server: Server) -> int:
    return int(server.sockets[0].getsockname()[1])


async def test_an_open_connection_keeps_no_headers() -> None:
    """The headers, 3 KB with the token among them, are freed when the handshake is over."""
    listener = Listener()
    async with (
        _serve(listener) as running,
        connect(f"ws://127.0.0.1:{_port(running)}/", user_agent_header="canary") as client,
    ):
        await (await client.ping())
        kept = [one for one in gc.get_objects() if isinstance(one, Headers) and "canary" in one.values()]
        assert client.request is not None
        assert [one is client.request.headers for one in kept] == [True]  # the client's own


@pytest.mark.parametrize(
    "ending",
    [
        _client_closes,
        _server_ends,
        _breaks_the_protocol,
        _link_is_cut,
        _is_refused,
        _is_malformed,
        _never_asks,
    ],
    ids=lambda ending: ending.__name__.strip("_"),
)
async def test_a_connection_that_is_over_is_freed(ending: Any) -> None:
    """Each kind of end is the same. Otherwise full collections, 0.9 s at 10,000 connections, could not be put off."""
    listener = Listener()
    async with _serve(listener) as running:
        await ending(_port(running), listener)
        async with asyncio.timeout(10):
            await asyncio.gather(*(freed.wait() for freed in listener.freed))
        assert listener.freed
