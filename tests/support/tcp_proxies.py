"""TCP proxies between a client and a relay, which a test can break as real links break.

Killing a process is not the same, because its kernel ends its connections. A cut link sends nothing to either side.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

CHUNK_BYTES = 65_536


@dataclass(slots=True, kw_only=True)
class Link:
    """Forwards connections to a port until a test breaks them. Later connections work.

    With `without_upgrades` a request for a WebSocket gets no answer, and is counted in `swallowed`. With `new_token`
    each request gets a token on its way, as from an application's server.
    """

    target: int
    port: int = 0
    without_upgrades: bool = False
    new_token: Callable[[], Awaitable[str]] | None = None
    swallowed: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    _flows: list["_Flow"] = field(default_factory=list)

    def cut(self) -> None:
        """Forward nothing more, in either direction. Every socket stays open."""
        for flow in self._flows:
            flow.forwarding = False

    def reset(self) -> None:
        """Reset both sides' sockets."""
        for flow in self._flows:
            flow.client.transport.abort()
            flow.relay.transport.abort()

    def half_close(self) -> None:
        """Close the direction to the client, and still read from the client."""
        for flow in self._flows:
            flow.forwarding = False
            flow.client.write_eof()

    async def accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Connect to the relay and forward both ways until both sides have ended."""
        head = b""
        if self.without_upgrades:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
            if not head or b"\r\nupgrade: websocket" in head.lower():
                self.swallowed.put_nowait(None)
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                client.transport.abort()
                return
        try:
            from_relay, relay = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the client would get the same without this link
            client.transport.abort()
            return
        if self.new_token is not None:
            request_line = await reader.readline()
            head = request_line + f"Authorization: Bearer {await self.new_token()}\r\n".encode()
        relay.write(head)
        flow = _Flow(client=client, relay=relay)
        self._flows.append(flow)
        await asyncio.gather(flow.pump(reader, relay), flow.pump(from_relay, client))
        self._flows.remove(flow)


@dataclass(slots=True, kw_only=True)
class _Flow:
    """One connection's two sockets."""

    client: asyncio.StreamWriter
    relay: asyncio.StreamWriter
    forwarding: bool = True

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                if self.forwarding:
                    writer.write(data)
                    await writer.drain()
        if self.forwarding:
            writer.close()


@contextlib.asynccontextmanager
async def linked(
    target: int, *, without_upgrades: bool = False, new_token: Callable[[], Awaitable[str]] | None = None
) -> AsyncIterator[Link]:
    """Forward a free port to `target`."""
    link = Link(target=target, without_upgrades=without_upgrades, new_token=new_token)
    handlers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(link.accept(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        link.reset()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


class Proxy:
    """Forwards bytes in both directions. `url` is the proxy's address, to be used in place of the relay's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._restored = asyncio.Event()
        self._restored.set()
        self.url = ""

    def cut(self) -> None:
        """Abort every connection without a close frame, and hold new ones back."""
        self._restored.clear()
        for writer in self._open:
            writer.transport.abort()

    def restore(self) -> None:
        """Forward connections again."""
        self._restored.set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        await self._restored.wait()
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, up_writer}
        try:
            await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
        finally:
            self._open -= {writer, up_writer}
            writer.transport.abort()
            up_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy to a port of this machine."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    async with server:
        proxy.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            proxy.cut()
            proxy.restore()
