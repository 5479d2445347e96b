"""A small real server for relay.ingest.v1. It remembers the accepted messages, and fails when a test says so.

It numbers and forgets like the relay: `die` is a kill -9 and a new start. What it does not do is the relay's own work,
checking; `tests/ingest` and the tests against the real relay are for that.
"""

import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

KEY = "pricing.secret"


@dataclass
class Ingest:
    """The server's script. Each of `cuts` is a number of messages after which a connection breaks, acks and all."""

    url: str = ""
    credit: int = 1024
    streams: tuple[str, ...] = ("trades.>",)
    cuts: list[int] = field(default_factory=list)
    acks_after: int = 1
    """How many messages wait for their ack, whatever frame they came in."""
    refusals: list[Response] = field(default_factory=list)
    forbidden: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()
    close: tuple[int, str] | None = None
    """Close with this code and reason, after an error frame with the reason, at the first message."""
    poison: Any = None
    """The data of messages that end their connection with `poison_code`. No message of their frame is acked."""
    poison_code: int = 1007
    epoch: str = "e1"
    taken: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    frames: list[list[dict[str, Any]]] = field(default_factory=list)
    handshakes: list[Request] = field(default_factory=list)
    connections: list[ServerConnection] = field(default_factory=list)
    is_mute: bool = False
    most_unacked: int = 0

    def data(self, channel: str) -> list[Any]:
        """Return what was taken on a channel, in order."""
        return [message.get("data") for message in self.taken if message["channel"] == channel]

    def die(self) -> None:
        """Forget everything, and cut all connections."""
        self.epoch = secrets.token_hex(2)
        self.taken.clear()
        self.keys.clear()
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self.connections:
            connection.transport.abort()

    def process(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request)
        return self.refusals.pop(0) if self.refusals else None

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        await send(
            connection,
            type="welcome",
            protocol="relay.ingest.v1",
            publisher="pricing",
            ts=1,
            credit=self.credit,
            epoch=self.epoch,
            streams=self.streams,
            limits={"message_bytes": 65536, "frame_bytes": 1 << 20, "frame_messages": 256},
        )
        cut = self.cuts.pop(0) if self.cuts else -1
        told: set[str] = set()
        received = acked = 0
        duplicate: list[int] = []
        stale: list[int] = []
        async for frame in connection:
            assert isinstance(frame, str)
            messages = [json.loads(line) for line in frame.split("\n")]
            self.frames.append(messages)
            if self.poison is not None and any(one.get("data") == self.poison for one in messages):
                await connection.close(self.poison_code)
                return
            for message in messages:
                received += 1
                assert message["id"] == received, "ids have no holes"
                assert received <= acked + self.credit, "the credit is kept"
                if self.close is not None:
                    await send(connection, type="error", code=self.close[1], message=self.close[1])
                    await connection.close(*self.close)
                    return
                if received == cut:
                    connection.transport.abort()
                    return
                if message["channel"] in self.forbidden:
                    await send(connection, type="error", id=received, code="forbidden", message="Not yours.")
                elif message["channel"] in self.stale:
                    stale.append(received)
                elif (key := message.get("idempotency_key")) is not None and key in self.keys:
                    duplicate.append(received)
                else:
                    self.keys.add(key or "")
                    self.taken.append(message)
            self.most_unacked = max(self.most_unacked, received - acked)
            if self.is_mute or received - acked < self.acks_after:
                continue
            named = {message["channel"] for message in messages} - told
            told |= named
            acked = received
            epochs = dict.fromkeys(named, self.epoch)
            dropped = {"duplicate": duplicate, "stale": stale}
            more = {name: ids for name, ids in dropped.items() if ids}
            await send(connection, type="ack", upto=acked, credit=acked + self.credit, epoch=epochs, **more)
            duplicate, stale = [], []


async def send(connection: ServerConnection, **frame: Any) -> None:
    """Send one frame."""
    await connection.send(json.dumps(frame))


def refused(status: int, body: Any) -> Response:
    """Return what a handshake is refused with."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, "No", Headers({"Content-Length": str(len(content))}), content)


@contextlib.asynccontextmanager
async def ingest_server(**script: Any) -> AsyncIterator[Ingest]:
    """Serve the script."""
    ingest = Ingest(**script)
    async with serve(
        ingest.handle, "127.0.0.1", 0, process_request=ingest.process, compression=None
    ) as server:
        host, port = server.sockets[0].getsockname()[:2]
        ingest.url = f"http://{host}:{port}"
        yield ingest
