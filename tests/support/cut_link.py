"""A TCP link between a client and a relay that fails as links do: silently, with a reset, or one way only.

Killing a process is not the same: its kernel says goodbye for it. A cut link says nothing to either side.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

CHUNK_BYTES = 65_536


@dataclass(slots=True, kw_only=True)
class Link:
    """Forwards connections to a port until it is told to fail; connections made afterwards are fine."""

    target: int
    port: int = 0
    _flows: list["_Flow"] = field(default_factory=list)

    def cut(self) -> None:
        """Forward nothing any more, in either direction; every socket stays open."""
        for flow in self._flows:
            flow.forwarding = False

    def reset(self) -> None:
        """Reset both sides' sockets."""
        for flow in self._flows:
            flow.client.transport.abort()
            flow.relay.transport.abort()

    def half_close(self) -> None:
        """End what the client reads, and go on taking what it writes."""
        for flow in self._flows:
            flow.forwarding = False
            flow.client.write_eof()

    async def accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Connect to the relay and forward both ways until both sides have ended."""
        try:
            from_relay, relay = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # what the client would have met without this link
            client.transport.abort()
            return
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
async def linked(target: int) -> AsyncIterator[Link]:
    """Forward a free port to `target`."""
    link = Link(target=target)
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
