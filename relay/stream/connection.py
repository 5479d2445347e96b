"""One WebSocket connection: the library's, with a sink for the hub and the hooks that bound it.

All frames to the client go through the transport's own `write`, never through the library's `send`, so that
acknowledgements and data keep their order. That is right only while the connection is open: the hub's
subscriber is taken out at the first sign of a close, before anything else can be written behind the close frame.

What the library leaves open and this class bounds:
- a reader that stops reading: nothing is written to it any more once bytes are pending (the hub), and
  `Heart` aborts it after 30 seconds;
- a client that sends and does not read: the answers to its pings pile up in our memory, so reading from it
  pauses while more than 64 KiB wait to be sent;
- a close that is never answered: the transport is aborted one second later.
"""

import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Event
from websockets.server import ServerProtocol

from relay.core.closes import Close
from relay.core.errors import Reason
from relay.core.hub import Hub, Subscriber
from relay.core.protocol import ClientProtocol

PAUSE_READING_BYTES = 65_536
"""Bytes waiting to be sent at which nothing more is read from the client."""
CLOSE_TIMEOUT_S = 1.0
"""Seconds that a client has to answer a close. A browser answers in one round trip."""


class StreamConnection(ServerConnection):
    """The library's connection with the relay's hooks. `on_made` and `on_lost` keep the counts of addresses."""

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        on_made: "Callable[[StreamConnection], None]",
        on_lost: "Callable[[StreamConnection], None]",
        **options: Any,
    ) -> None:
        super().__init__(protocol, server, **options)
        self.opened_at = time.time()
        self.admission: Any = None  # set by the gate, read by the handler
        self.ended: Close | None = None  # how we ended it, if we did
        self.silent_rounds = 0  # ping rounds in which nothing was heard
        self.stalled_bytes = 0
        self.stalled_beats = 0
        self._on_made = on_made
        self._on_lost = on_lost
        self._hub: Hub | None = None
        self._subscriber: Subscriber | None = None
        self.client: ClientProtocol | None = None
        self._reading_paused = False

    # the hub's sink

    def write(self, data: bytes) -> None:
        """Write whole frames. Only called while the connection is open; see `attach`."""
        self.transport.write(data)

    def pending(self) -> int:
        """Return the bytes that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    def attach(self, hub: Hub, subscriber: Subscriber, client: ClientProtocol) -> None:
        """Tie the connection to its place in the hub, until it closes."""
        self._hub, self._subscriber, self.client = hub, subscriber, client

    def detach(self, reason: Reason) -> None:
        """Take the connection out of the hub; nothing is written to it from here on."""
        client, self.client = self.client, None
        if client is not None:
            client.close(reason)
        self._hub = self._subscriber = None

    def end(self, close: Close) -> None:
        """Send a close frame without waiting for anything; abort if it is not answered in time."""
        self.detach(close.reason)
        if self.protocol.state is not OPEN:
            return
        self.ended = close
        self.protocol.send_close(close.code, close.text)
        self.send_data()
        self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def drop(self, close: Close) -> None:
        """End the TCP connection at once: the client does not read, or is not there."""
        if self.protocol.state is OPEN:
            self.ended = close
        self.detach(close.reason)
        self.transport.abort()

    # asyncio's callbacks

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        # looked up for every delivery: skip this class's methods
        self.write = transport.write  # type: ignore[method-assign]
        self.pending = transport.get_write_buffer_size  # type: ignore[method-assign]
        self._on_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.detach(Reason.LINK_LOST)
        self._on_lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.silent_rounds = 0
        super().data_received(data)
        if self.protocol.state is not OPEN:
            self.detach(Reason.CLIENT_CLOSED)
        elif self.pending() > PAUSE_READING_BYTES:
            self._reading_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """See `asyncio.Protocol`."""
        super().eof_received()
        self.detach(Reason.LINK_LOST)

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the transport holds nothing any more."""
        super().resume_writing()
        if self._reading_paused:
            self._reading_paused = False
            if not self.recv_messages.paused:
                self.transport.resume_reading()
        if self._hub is not None and self._subscriber is not None:
            self._hub.drained(self._subscriber)

    def process_event(self, event: Event) -> None:
        """Count pings and pongs like messages: answering one costs as much."""
        super().process_event(event)
        if isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG) and self.client is not None:
            # an answer to our own ping is one in 20 seconds, and the bucket has room for it
            close = self.client.control_frame(time.time())
            if close is not None:
                self.end(close)
