"""One event stream (Server-Sent Events): an HTTP answer without an end, for places where WebSockets are blocked.

Each frame of relay.v1 is one event. The client sends nothing: its subscriptions came with the request, and for a new
token it opens another connection. So there are no pings either. Heartbeats are data that the client's kernel must
acknowledge, and a client that is gone is found by TCP_USER_TIMEOUT, or because its bytes wait.

A stream has no close frame. Its last event is `close`, with the code and the reason that a close frame would have.
"""

import asyncio
import time
from collections.abc import Callable

from websockets.http11 import Response

from relay.core import messages
from relay.core.channels import IdEncoder
from relay.core.closes import Close, CloseCode, close_for
from relay.core.errors import Reason
from relay.core.subscribers import Pack
from relay.net.admission import AdmissionQueue
from relay.stream.compression import GZIP_HEADER, Compressor, stored
from relay.stream.connection import StreamConnection
from relay.stream.lifecycle import LIVE, TIMERS, Event, Phase, Timer, next_phase
from relay.stream.outgoing import CLOSE_TIMEOUT_S, Outgoing


class EventEncoder(IdEncoder):
    """Makes events of messages. A client keeps the last id, and sends it as Last-Event-ID when it connects again."""

    def __call__(self, message: bytes) -> bytes:
        """Return `message` as one event. No message has a line break: `core.publications.parse_draft` sees to it."""
        return b"data: %b\n\n" % message

    def with_id(self, position: bytes, frame: bytes = b"") -> bytes:
        """See `IdEncoder`. An event without data only changes the id (WHATWG HTML §9.2.6)."""
        return b"id: %b\n%b" % (position, frame or b"\n")


class StoredEventEncoder(EventEncoder):
    """Makes events of messages, for streams that are compressed: see `relay.stream.compression`."""

    def __call__(self, message: bytes) -> bytes:
        """Return `message` as one event, stored."""
        return stored(super().__call__(message))

    def with_id(self, position: bytes, frame: bytes = b"") -> bytes:
        """See `EventEncoder`."""
        return stored(b"id: %b\n%b" % (position, b"" if frame else b"\n")) + frame


encode, encode_stored = EventEncoder(), StoredEventEncoder()
"""The encoders of all event streams, plain and compressed. They share them, and so the events."""


class SseConnection(Outgoing, asyncio.Protocol):
    """One connection. `begin` takes the transport over from the connection that has read the request."""

    __slots__ = (
        "_closing_queue",
        "_half_closed",
        "_lost",
        "_transport",
        "compress",
        "encode",
        "id",
        "opened_at",
    )

    accepted_status = 200

    def __init__(
        self, request: StreamConnection, *, closing_queue: AdmissionQueue, compress: bool = False
    ) -> None:
        self.compress = compress
        self.encode = encode_stored if compress else encode
        self._start(time.monotonic() - request.age_s)
        self.id = request.id
        self.opened_at = request.opened_at
        self.phase = Phase.UNAUTHENTICATED  # until `attach`
        self._closing_queue = closing_queue
        self._half_closed = False
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def begin(self, request: StreamConnection, head: Response, last_id: str) -> bool:
        """Take the transport over and write the head of the answer. Return False if the client has gone.

        `last_id` is where the client is. An EventSource without an id would not say that it connects again.
        """
        transport = request.hand_over(self)
        if transport is None:
            return False
        self._transport = transport
        self.write: Callable[[bytes], None] = transport.write
        self.pending: Callable[[], int] = transport.get_write_buffer_size
        if self.compress:
            head.headers["Content-Encoding"] = "gzip"
        begin = head.serialize() + (GZIP_HEADER if self.compress else b"")
        self.write(begin + self.encode.with_id(last_id.encode("ascii")))
        return True

    def pack(self, compressor: Compressor) -> Pack | None:
        """See `StreamConnection.pack`."""
        return compressor.event_batch if self.compress else None

    async def wait_closed(self) -> None:
        """Wait until the TCP connection is gone."""
        await asyncio.shield(self._lost)

    def ending(self) -> tuple[int, Reason, str]:
        """Return the close code, the reason, and who began the close: "relay", "client" or "network"."""
        if self.ended is not None:
            return int(self.ended.code), self.ended.reason, "relay"
        if self._half_closed:  # how a page ends a stream
            return int(CloseCode.NORMAL), Reason.CLIENT_CLOSED, "client"
        return int(CloseCode.ABNORMAL), Reason.LINK_LOST, "network"

    def end(self, close: Close) -> None:
        """Send the last event without waiting. The connection is cut if the client doesn't take it in time."""
        self._detach(close.reason)
        if self.phase in LIVE and self._transport is not None:
            self.ended = close
            self.write(self.encode(messages.closing(code=close.code, reason=close.text)))
            self._advance(Event.CLOSE_WRITTEN)
            self._transport.close()

    def abort(self) -> None:
        """Cut the TCP connection at once."""
        self._advance(Event.ABORTED)
        if self._transport is not None:
            self._transport.abort()

    def _advance(self, event: Event) -> Phase:
        before, self.phase = self.phase, next_phase(self.phase, event)
        if self.phase is not before and TIMERS[self.phase] is Timer.ABORT:
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._cut)
        return self.phase

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks

    def data_received(self, data: bytes) -> None:  # noqa: ARG002  # asyncio's signature
        """See `asyncio.Protocol`. A client has nothing to say, and what it sends must not cost anything."""
        if self.phase in LIVE:
            self.drop(close_for(Reason.FRAME_MALFORMED))

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. The client has closed its side, and asyncio closes ours."""
        if self.phase in LIVE:
            self._half_closed = True
            self._mute()
            self._advance(Event.CLOSE_WRITTEN)
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """See `asyncio.Protocol`. The hub must not write to the transport after this."""
        self._mute()
        self._advance(Event.CONNECTION_LOST)
        self._closing_queue.submit(self._finish)

    def _mute(self) -> None:
        """Write nothing from here on. Out of the hub it comes later: thousands of connections can end in one turn."""
        if self._subscriber is not None:
            self._subscriber.mute()

    def _finish(self) -> bool:
        self._detach(Reason.CLIENT_CLOSED if self._half_closed else Reason.LINK_LOST)
        # they refer to the transport, and over TLS that refers to this object
        self._transport, self.write, self.pending = None, _ignore, _nothing_pending
        self._lost.set_result(None)
        return True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the kernel has taken all bytes."""
        self._drained()


def _ignore(_data: bytes) -> None:
    pass


def _nothing_pending() -> int:
    return 0
