"""A backend behind the API proxy that a test scripts: it sees each request as bytes, and answers with bytes."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tests.support.backends import http_answer
from tests.support.ports import free_ports
from tests.support.raw_http import Answer, Fields, exchange, head
from tests.support.relay_process import Relay

ROUTES = """
[bff.proxy]
request_headers = ["x-tenant"]
response_headers = ["x-total"]
request_cookies = ["theme"]
response_cookies = ["theme"]
connections = 4
calls_per_session = 3
max_body_bytes = 4000000
inspect_bytes = 65536
filter_bytes = 65536
answer_s = 2
idle_s = 2
[bff.proxy.routes."/users"]
[bff.proxy.routes."/users/admin"]
strip = ["ssn", "users.*.score"]
[bff.proxy.routes."/orders"]
methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
"""
LIMITS = """
proxy_per_session = "100000/minute"
proxy_per_address = "100000/minute"
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived. `fields` are as they came, and their names in lower case in `values`."""

    line: str
    fields: tuple[tuple[str, str], ...]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def names(self) -> set[str]:
        """Return the names of the headers in lower case."""
        return {name.lower() for name, _ in self.fields}


class Conversation:
    """One connection of the relay to the backend."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> Seen:
        """Read the head of a request."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = text[:-4].split("\r\n")
        fields = tuple((name, value.strip()) for name, _, value in (one.partition(":") for one in lines))
        return Seen(line, fields)

    async def request(self) -> Seen:
        """Read a whole request."""
        seen = await self.head()
        if seen.all("transfer-encoding"):
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
        else:
            body = await self.reader.readexactly(int((seen.all("content-length") or ["0"])[0]))
        return Seen(seen.line, seen.fields, body)

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the relay has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


Handler = Callable[[Conversation], Awaitable[None]]


class ProxiedBackend:
    """The backend on one port. Each test says how it answers."""

    def __init__(self) -> None:
        [self.port] = free_ports(1)
        self.requests: list[Seen] = []
        self.open = 0
        self.opened = 0
        self._changed = asyncio.Event()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Seen:
        """The last request."""
        return self.requests[-1]

    @contextlib.asynccontextmanager
    async def serving(self, handler: Handler) -> AsyncIterator[None]:
        """Run `handler` for each connection."""
        self.requests.clear()
        self._changed = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.open += 1
            self.opened += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(Conversation(reader, writer))
            self.open -= 1
            self._changed.set()
            writer.close()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks)

    @contextlib.asynccontextmanager
    async def answering(self, answer: bytes) -> AsyncIterator[None]:
        """Answer each request with these bytes, and close if they say so."""

        async def handler(conversation: Conversation) -> None:
            while True:
                self.requests.append(await conversation.request())
                await conversation.write(answer)
                if b"onnection: close" in answer:
                    return

        async with self.serving(handler):
            yield

    async def all_closed(self) -> None:
        """Wait until the relay has no connection to the backend."""
        while self.open:
            self._changed.clear()
            await self._changed.wait()


def page(relay: Relay, session: str | None = None) -> list[tuple[str, str]]:
    """Return the headers of a call of the application's page."""
    return [
        ("Host", "127.0.0.1"),
        ("Origin", relay.url),
        ("Cookie", f"access-token={session or relay.session()}; refresh-token=refresh-token-0123456789"),
    ]


async def call(
    relay: Relay,
    path: str,
    *fields: tuple[str, str],
    method: str = "GET",
    body: bytes | None = None,
    session: str | None = None,
) -> Answer:
    """Call `/api/proxy` + `path` as the application's page does, with further headers."""
    own: Fields = [*page(relay, session), *fields]
    if body is not None and not any(name == "Transfer-Encoding" for name, _ in fields):
        own = [*own, ("Content-Length", str(len(body)))]
    return await exchange(relay.ports[0], head(method, f"/api/proxy{path}", own) + (body or b""))


def ok(body: bytes = b"{}", *headers: str, status: int = 200) -> bytes:
    """Return an answer on a connection that stays open; JSON unless the headers say otherwise."""
    if not any(header.lower().startswith("content-type") for header in headers):
        headers = ("Content-Type: application/json", *headers)
    return http_answer(status, body, *headers).replace(b"Connection: close\r\n", b"")


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a client's connection with a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
