"""WebSocket clients that nobody here wrote, behind one small interface, so that one test can run with each.

What they do of their own accord is left on: most offer compression, which is declined; node's built-in WebSocket
names no origin, as a server-side caller does; `websocket-client` checks UTF-8 by itself. The two for node come with
Playwright, which the browser's tests need anyway: its own node, and the npm package `ws` in its bundle.
"""

import asyncio
import contextlib
import json
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import playwright
import pytest
import websocket
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.support.raw_websocket import PATIENCE_S, masked, open_raw_websocket

Ending = tuple[int, str]


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """How to connect: where, with which subprotocols, and in whose name ("" for nobody's)."""

    url: str
    protocols: list[str]
    origin: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Origin": self.origin} if self.origin else {}


class Client(Protocol):
    """The methods that the tests use, the same for every client library."""

    protocol: str | None

    async def send(self, text: str) -> None: ...

    async def read(self) -> str: ...

    async def close(self) -> None:
        """Close with 1000."""
        ...

    async def ended(self) -> Ending:
        """Read up to the relay's close frame; return its code and reason."""
        ...


Opener = Callable[[Ticket], AbstractAsyncContextManager[Client]]


class WebSocketClient:
    """PyPI's `websocket-client`, which blocks."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self.protocol = socket.getsubprotocol()

    async def send(self, text: str) -> None:
        await asyncio.to_thread(self._socket.send, text)

    async def read(self) -> str:
        got = await asyncio.to_thread(self._socket.recv)
        assert isinstance(got, str)
        return got

    async def close(self) -> None:
        await asyncio.to_thread(self._socket.close)

    async def ended(self) -> Ending:
        while True:
            opcode, data = await asyncio.to_thread(self._socket.recv_data, control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return struct.unpack("!H", data[:2])[0], data[2:].decode()


@contextlib.asynccontextmanager
async def websocket_client(ticket: Ticket) -> AsyncIterator[Client]:
    """Connect with `websocket-client`."""
    socket = await asyncio.to_thread(
        websocket.create_connection,
        ticket.url,
        timeout=PATIENCE_S,
        subprotocols=ticket.protocols or None,
        origin=ticket.origin or None,
        suppress_origin=not ticket.origin,
    )
    try:
        yield WebSocketClient(socket)
    finally:
        socket.shutdown()  # type: ignore[no-untyped-call]  # websocket-client has no annotation there


class WebSocketsSync:
    """The blocking client of `websockets`: the library that the relay serves with, from its other side."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.protocol = connection.subprotocol

    async def send(self, text: str) -> None:
        await asyncio.to_thread(self._connection.send, text)

    async def read(self) -> str:
        return str(await asyncio.to_thread(self._connection.recv, timeout=PATIENCE_S))

    async def close(self) -> None:
        await asyncio.to_thread(self._connection.close)

    async def ended(self) -> Ending:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.read()
        return self._connection.close_code, self._connection.close_reason


@contextlib.asynccontextmanager
async def websockets_sync(ticket: Ticket) -> AsyncIterator[Client]:
    """Connect with `websockets.sync`, which offers to compress."""
    opening = connect(
        ticket.url,
        origin=Origin(ticket.origin) if ticket.origin else None,
        subprotocols=[Subprotocol(name) for name in ticket.protocols] or None,
        proxy=None,
    )
    with contextlib.ExitStack() as stack:
        connection = await asyncio.to_thread(stack.enter_context, opening)
        yield WebSocketsSync(connection)
        await asyncio.to_thread(stack.close)


class Aiohttp:
    """aiohttp's client."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.protocol = socket.protocol

    async def send(self, text: str) -> None:
        await self._socket.send_str(text)

    async def read(self) -> str:
        return await self._socket.receive_str(timeout=PATIENCE_S)

    async def close(self) -> None:
        await self._socket.close()

    async def ended(self) -> Ending:
        while True:
            message = await self._socket.receive(timeout=PATIENCE_S)
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra or ""


@contextlib.asynccontextmanager
async def aiohttp_client(ticket: Ticket) -> AsyncIterator[Client]:
    """Connect with aiohttp, which offers to compress."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            ticket.url, protocols=ticket.protocols, headers=ticket.headers, compress=15
        ) as socket,
    ):
        assert socket.compress == 0, "the offer was declined"
        yield Aiohttp(socket)


class RawSocket:
    """A bare TCP connection and frames made by hand."""

    def __init__(self, wire: Any, protocol: str | None) -> None:
        self._wire = wire
        self.protocol = protocol

    async def send(self, text: str) -> None:
        self._wire.send(masked(Opcode.TEXT, text.encode()))

    async def read(self) -> str:
        while True:
            opcode, data = await self._wire.frame()
            if opcode == Opcode.TEXT:
                return str(data.decode())

    async def close(self) -> None:
        self._wire.send(masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))
        assert (await self._wire.ending()).code == 1000

    async def ended(self) -> Ending:
        ending = await self._wire.ending()
        return ending.code, ending.reason


@contextlib.asynccontextmanager
async def raw_socket(ticket: Ticket) -> AsyncIterator[Client]:
    """Connect by hand."""
    host, _, rest = ticket.url.removeprefix("ws://").partition("/")
    offered = f"Sec-WebSocket-Protocol: {', '.join(ticket.protocols)}\r\n" if ticket.protocols else ""
    port = int(host.rpartition(":")[2])
    async with open_raw_websocket(port, f"/{rest}", origin=ticket.origin, headers=offered) as wire:
        head = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 101 ")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        yield RawSocket(wire, fields.get("sec-websocket-protocol"))


NODE = """
const [kind, bundle, given] = process.argv.slice(1);
const {url, protocols, origin} = JSON.parse(given);
const say = (message) => process.stdout.write(JSON.stringify(message) + "\\n");
const socket = kind === "ws"
  ? new (require(bundle).ws)(url, protocols, {origin})
  : new WebSocket(url, protocols);
socket.onopen = () => say({protocol: socket.protocol || null});
socket.onmessage = ({data}) => say({data});
socket.onclose = ({code, reason}) => { say({code, reason}); process.exit(); };
socket.onerror = ({message}) => say({error: String(message)});
require("node:readline").createInterface({input: process.stdin})
  .on("line", (line) => line === "close" ? socket.close(1000) : socket.send(line));
"""
DRIVER = Path(playwright.__file__).parent / "driver"
BUNDLE = DRIVER / "package" / "lib" / "utilsBundle.js"


class Node:
    """A WebSocket of node: a script that repeats what it gets, a line each."""

    def __init__(self, process: asyncio.subprocess.Process, protocol: str | None) -> None:
        self._process = process
        self.protocol = protocol

    async def said(self) -> dict[str, Any]:
        """Return the script's next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            said: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return said

    async def send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")

    async def read(self) -> str:
        return str((await self.said())["data"])

    async def close(self) -> None:
        await self.send("close")
        assert (await self.ended())[0] == 1000

    async def ended(self) -> Ending:
        while "code" not in (said := await self.said()):
            pass
        return said["code"], said["reason"]


@contextlib.asynccontextmanager
async def _node(kind: str, ticket: Ticket) -> AsyncIterator[Client]:
    if not BUNDLE.exists():
        assert os.environ.get("CI") != "true", "Playwright's bundle is gone; take node's `ws` from elsewhere"
        pytest.skip("this Playwright has no bundle with node's ws")
    pipe = asyncio.subprocess.PIPE
    given = json.dumps({"url": ticket.url, "protocols": ticket.protocols, "origin": ticket.origin})
    process = await asyncio.create_subprocess_exec(
        DRIVER / "node", "-e", NODE, "--", kind, BUNDLE, given, stdin=pipe, stdout=pipe, limit=1 << 20
    )
    try:
        client = Node(process, None)
        client.protocol = (await client.said())["protocol"]
        yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def node_ws(ticket: Ticket) -> AbstractAsyncContextManager[Client]:
    """Connect with the npm package `ws`, which offers to compress."""
    return _node("ws", ticket)


def node_built_in(ticket: Ticket) -> AbstractAsyncContextManager[Client]:
    """Connect with node's own WebSocket."""
    return _node("built-in", ticket)


OPENERS: tuple[Opener, ...] = (
    websocket_client,
    websockets_sync,
    aiohttp_client,
    raw_socket,
    node_ws,
    node_built_in,
)
