"""HTTP requests as exact bytes, also those that no client library would send."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import cleared_cookies
from tests.support.relay_process import PUBLISHER_KEY, Relay

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
Fields = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. `status` 0: the connection was closed without one, or within one."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for field, value in self.fields if field == name.lower()]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The `code` of an error."""
        return str(self.json["code"])


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one response: head and announced body."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        fields = tuple(
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        if ("transfer-encoding", "chunked") in fields:
            return Answer(int(first.split(" ")[1]), fields, await _chunks(reader))
        length = next((int(value) for name, value in fields if name == "content-length"), 0)
        return Answer(int(first.split(" ")[1]), fields, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(0)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body


async def exchange(port: int, data: bytes, *, source: str = "127.0.0.1", half_close: bool = False) -> Answer:
    """Send bytes and read the first response."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            with contextlib.suppress(ConnectionError):  # refused before all was read
                writer.write(data)
                await writer.drain()
                if half_close:
                    writer.write_eof()
            answer = await read_answer(reader)
        finally:
            writer.close()
    path = data.split(b" ", 2)[1].decode("latin-1") if data.count(b" ") > 1 else ""
    cleared_cookies.check(port, path, answer.status, answer.all("set-cookie"))
    return answer


def head(method: str, target: str, fields: Fields) -> bytes:
    """Return a request's head; Latin-1, so that any byte can be sent."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def post(
    relay: Relay, path: str, fields: Fields = (), *, body: bytes = b"", port: int | None = None
) -> Answer:
    """POST to the public listener. Host and length are added, nothing else."""
    first = [("Host", "127.0.0.1"), ("Content-Length", str(len(body)))]
    return await exchange(port or relay.ports[0], head("POST", path, [*first, *fields]) + body)


async def ask(
    relay: Relay, body: Any = None, *, session: str | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask for a scoped token from the application's page, with a fresh session unless one is given.

    With `headers` exactly these are sent, instead of the page's.
    """
    fields = [("Origin", relay.url), ("Cookie", f"access-token={session or relay.session()}")]
    if headers is not None:
        fields = list(headers.items())
    if body is None:
        return await post(relay, "/auth/ws-token", fields)
    content = json.dumps(body).encode()
    return await post(relay, "/auth/ws-token", [*fields, ("Content-Type", "application/json")], body=content)


async def fresh(relay: Relay) -> str:
    """Return a fresh scoped token for the application's page; this is faster than with a client library."""
    return str((await ask(relay)).json["wsToken"])


async def publish(relay: Relay, body: bytes) -> Answer:
    """Publish a body as it is with the publisher's key."""
    fields = [
        ("Host", "127.0.0.1"),
        ("Authorization", f"Bearer {PUBLISHER_KEY}"),
        ("Content-Length", str(len(body))),
    ]
    return await exchange(relay.ports[2], head("POST", "/v1/publish", fields) + body)


def upgrade(relay: Relay, *, origin: str | None = None, key: str = KEY) -> list[tuple[str, str]]:
    """Return the header fields of a good handshake; `origin` None is the application's own, "" none."""
    fields = [
        ("Host", f"127.0.0.1:{relay.ports[1]}"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    origin = relay.url if origin is None else origin
    return [*fields, ("Origin", origin)] if origin else fields


async def knock(
    relay: Relay,
    target: str = "/ws/prices",
    fields: Fields | None = None,
    *,
    method: str = "GET",
    source: str = "127.0.0.1",
) -> Answer:
    """Send a handshake to the stream's listener and read the answer; the connection is then dropped."""
    data = head(method, target, upgrade(relay) if fields is None else fields)
    return await exchange(relay.ports[1], data, source=source)


def bearing(token: str) -> tuple[str, str]:
    """Return the header that carries a token as a subprotocol."""
    return ("Sec-WebSocket-Protocol", f"relay.v1, bearer.{token}")


def asking_for_events(relay: Relay, *, origin: str | None = None) -> list[tuple[str, str]]:
    """Return the header fields of a good request for an event stream; `origin` as in `upgrade`."""
    fields = [("Host", f"127.0.0.1:{relay.ports[1]}"), ("Accept", "text/event-stream")]
    origin = relay.url if origin is None else origin
    return [*fields, ("Origin", origin)] if origin else fields


@dataclass(frozen=True)
class Opening:
    """One way to open a connection: the fields of a good request, the one that carries a token, and the answer."""

    request: Callable[..., list[tuple[str, str]]]
    bearing: Callable[[str], tuple[str, str]]
    status: int


OPENINGS = {
    "websocket": Opening(upgrade, bearing, 101),
    "sse": Opening(asking_for_events, lambda token: ("Authorization", f"Bearer {token}"), 200),
}
OVER_EACH_TRANSPORT = pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
"""For tests of what holds for WebSockets and event streams alike."""


async def is_unspent(relay: Relay, token: str) -> bool:
    """Tell whether a token still opens a connection; it does not afterwards."""
    return (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101


async def pour(port: int, request: bytes, count: int, *, source: str) -> Counter[int]:
    """Send `count` requests, over one connection while it stays open; returns the number of answers by status."""
    found: Counter[int] = Counter()
    writer: asyncio.StreamWriter | None = None
    for _ in range(count):
        if writer is None or writer.is_closing():
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(request)
        answer = await read_answer(reader)
        found[answer.status] += 1
        if answer.all("connection") == ["close"]:
            writer.close()
    if writer is not None:
        writer.close()
    return found


CLOSED = b"\x88\x11\x11\x95session_revoked"


async def connect_once(relay: Relay, token: str) -> bytes | None:
    """Connect; return all bytes up to the close frame or the end, or None if the connection was refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[1])
    try:
        writer.write(head("GET", "/ws/prices", [*upgrade(relay), bearing(token)]))
        if (await read_answer(reader)).status != 101:
            return None
        got = b""
        async with asyncio.timeout(10):
            while not got.endswith(CLOSED) and (chunk := await reader.read(65_536)):
                got += chunk
        return got
    finally:
        writer.close()
