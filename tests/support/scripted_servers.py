"""Small real servers that follow a test's script: HTTP on uvicorn, streams on websockets."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request as Handshake
from websockets.http11 import Response as Refusal

from relay.web.uvicorn_runner import HttpServer
from tests.support.compression_ways import messages, way

DEFLATE = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
"""What the relay negotiates. Other than the relay, these servers then compress each of their frames."""

TOKEN = "aaaa.bbbb.cccc"
WELCOME = {
    "type": "welcome",
    "connection": "c1",
    "protocol": "relay.v1",
    "ts": 1_000_000,
    "heartbeat_ms": 5000,
    "expires_at": 2_000_000,
    "limits": {"channels": 1024, "frame_bytes": 16384, "frames_per_s": 10},
}


@dataclass
class Answers:
    """An HTTP server's script: answers are used up one after the other, and the last one stays."""

    answers: list[Response]
    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: Request) -> Response:
        self.requests.append((request.url.path, dict(request.headers), await request.body()))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answer(status: int, body: Any = None, **headers: str) -> Response:
    """Return an answer with a JSON body, or `body` as it is if it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(
        content,
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        "application/json",
    )


@contextlib.asynccontextmanager
async def http_server(*answers: Response) -> AsyncIterator[Answers]:
    """Serve `answers` at every path."""
    script = Answers(list(answers))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = Starlette(routes=[Route("/{path:path}", script.handle, methods=["GET", "POST"])])
        server = HttpServer(app, listener)
        task = asyncio.create_task(server.run())
        await server.started()
        try:
            yield script
        finally:
            server.stop()
            await task


Script = Callable[[ServerConnection], Awaitable[None]]


@dataclass
class Stream:
    """A WebSocket server's script: one `Script`, or one refusal, a connection; the last one stays."""

    script: list[Script | Refusal]
    url: str = ""
    handshakes: list[Handshake] = field(default_factory=list)
    waiting: list[Script] = field(default_factory=list)
    extensions: list[bool] = field(default_factory=list)
    """Of each connection: whether it negotiated compression."""

    def process(self, _connection: ServerConnection, request: Handshake) -> Refusal | None:
        self.handshakes.append(request)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Refusal):
            return step
        self.waiting.append(step)
        return None

    async def handle(self, connection: ServerConnection) -> None:
        self.extensions.append(bool(connection.protocol.extensions))
        await self.waiting.pop(0)(connection)


def refusal(status: int, body: Any = None, **headers: str) -> Refusal:
    """Return what a handshake is refused with."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refusal(status, "No", Headers(named | {"Content-Length": str(len(content))}), content)


@contextlib.asynccontextmanager
async def stream_server(
    *script: Script | Refusal, protocol: str | None = "relay.v1"
) -> AsyncIterator[Stream]:
    """Serve the script; `protocol` is what the server selects of the client's offers."""
    stream = Stream(list(script))
    async with serve(
        stream.handle,
        "127.0.0.1",
        0,
        process_request=stream.process,
        select_subprotocol=lambda _connection, _offers: protocol,  # type: ignore[arg-type,return-value]  # any text
        compression=None,
        extensions=[DEFLATE],
    ) as server:
        host, port = server.sockets[0].getsockname()[:2]
        stream.url = f"ws://{host}:{port}/ws/prices"
        yield stream
    assert all(stream.extensions) or not way.compressed, "A connection did not ask for compression."


async def send(connection: ServerConnection, **frame: Any) -> None:
    """Send one frame."""
    await send_all(connection, frame)


async def send_all(connection: ServerConnection, *frames: Any) -> None:
    """Send these frames: values as one batch to a client that has asked for it, as a relay does."""
    for message in messages(frames, batched=bool(connection.protocol.extensions)):
        await connection.send(json.dumps(message))


async def welcome(connection: ServerConnection, **members: Any) -> None:
    """Send the welcome."""
    await connection.send(json.dumps(WELCOME | members))


async def read(connection: ServerConnection) -> dict[str, Any]:
    """Return the client's next frame."""
    frame: dict[str, Any] = json.loads(await connection.recv())
    return frame


async def stay(connection: ServerConnection) -> None:
    """Wait until the client disconnects."""
    await connection.wait_closed()


def value(kind: str, seq: int, *, channel: str = "prices.A", **members: Any) -> dict[str, Any]:
    """Return a snapshot or an update, with `seq` as its price."""
    epoch = {"epoch": "e1"} if kind == "snapshot" else {}
    return {
        "type": kind,
        "channel": channel,
        **epoch,
        "seq": seq,
        "ts": 1000 + seq,
        "data": {"p": seq},
        **members,
    }
