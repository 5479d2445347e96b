"""An event-stream client on a bare TCP connection: the counterpart of `RawWebSocket`, with the same methods."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.raw_http import Answer, Fields, head
from tests.support.raw_websocket import Ending, RawWebSocket

PATIENCE_S = 20


class RawEventStream(RawWebSocket):
    """One connection, opened by `open_event_stream`."""

    answer = Answer(0)
    last_id = ""
    """The last `id` that came, as an EventSource keeps it."""

    async def shake(self) -> int:
        """Read the head of the answer and return its status. The body of a refusal is in `answer`."""
        async with asyncio.timeout(PATIENCE_S):
            first, *lines = (
                (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
            )
            pairs = (line.partition(":") for line in lines)
            fields = tuple((name.lower(), value.strip()) for name, _, value in pairs)
            status = int(first.split(" ")[1])
            length = next((int(value) for name, value in fields if name == "content-length"), 0)
            self.answer = Answer(status, fields, await self.reader.readexactly(length))
        return status

    async def event(self) -> dict[str, Any]:
        """Return the next event's message. Events have no name, no comment, and one line of data."""
        while True:
            async with asyncio.timeout(PATIENCE_S):
                block = (await self.reader.readuntil(b"\n\n")).decode()
            data = [line.removeprefix("data: ") for line in block.splitlines() if line.startswith("data: ")]
            ids = [line.removeprefix("id: ") for line in block.splitlines() if line.startswith("id: ")]
            assert len(data) + len(ids) == len(block.rstrip("\n").splitlines()), block
            self.last_id = ids[0] if ids else self.last_id
            if data:
                (text,) = data
                message: dict[str, Any] = json.loads(text)
                return message

    async def message(self, *types: str) -> dict[str, Any]:
        """Return the next message of one of these types, or of any but `heartbeat`."""
        while True:
            message = await self.event()
            if message["type"] in types if types else message["type"] != "heartbeat":
                return message

    async def ending(self) -> Ending:
        """Read to the end of the TCP connection. Nothing may come after the event `close`."""
        before: list[dict[str, Any]] = []
        try:
            while (message := await self.event())["type"] != "close":
                before.append(message)
            async with asyncio.timeout(PATIENCE_S):
                assert await self.reader.read() == b"", "bytes came after the event close"
            return Ending(code=message["code"], reason=message["reason"], before=before)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return Ending(code=None, reason="", before=before)


@asynccontextmanager
async def open_event_stream(
    port: int, target: str, fields: Fields, *, method: str = "GET", receive_buffer: int | None = None
) -> AsyncIterator[RawEventStream]:
    """Connect and send a request for `target` with exactly these headers; reads nothing yet."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 17)
    writer.write(head(method, target, fields))
    try:
        yield RawEventStream(reader, writer)
    finally:
        writer.transport.abort()


def event_headers(token: str, *, origin: str, more: Fields = ()) -> list[tuple[str, str]]:
    """Return the headers of a page's `fetch` for an event stream."""
    bearer = [("Authorization", f"Bearer {token}")] if token else []
    from_page = [("Origin", origin)] if origin else []
    return [("Host", "127.0.0.1"), ("Accept", "text/event-stream"), *from_page, *bearer, *more]
