"""One WebSocket of an HTTP listener: uvicorn's protocol class, with bounds for broken text and for slow readers.

In each state a timer ends the connection of a client that does nothing:

    the application has not answered the handshake   none: it waits for nothing of the client
    open                                             uvicorn's pings: 20 s, and 20 s for the answer
    a close frame is sent                            uvicorn's `close_timeout`: 10 s
    bytes are not taken, in any of these states      `relay.net.write_stalls`
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from relay.core.errors import Reason, Refusal
from relay.net.write_stalls import STOPPED_WITHIN_S, WriteStalls

if TYPE_CHECKING:
    from websockets.http11 import Request  # uvicorn's interface; nothing here uses the package


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with bounds. `refuse` answers a handshake that the library refuses."""

    def __init__(self, *args: Any, refuse: Callable[[Refusal], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._refuse = refuse
        self._writes: WriteStalls | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        super().connection_made(transport)
        self._writes = WriteStalls(self.loop, cast("asyncio.Transport", transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._writes is not None:
            self._writes.stop()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection: the relay stops. A client that takes nothing would not get the close frame."""
        super().shutdown()
        self.handshake_complete = True  # it has its answer: uvicorn would log an error about one without
        self.loop.call_later(STOPPED_WITHIN_S, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. The first bytes are the request, which `BoundedHttp` has read already."""
        super().data_received(data)
        if not self.handshake_initiated and not self.close_sent and self.conn.handshake_exc is not None:
            self._refuse_handshake()  # uvicorn would neither answer nor close
        self._watch_writes()

    def handle_connect(self, event: "Request") -> None:
        """Give the application a handshake. What is none is refused in the form of all refusals, and recorded."""
        if self.conn.accept(event).status_code == 101:
            super().handle_connect(event)
        else:
            self._refuse_handshake()

    def _refuse_handshake(self) -> None:
        self.handshake_complete = self.close_sent = True
        detail = f"This is no WebSocket handshake: {self.conn.handshake_exc}."
        self._refuse(Refusal(reason=Reason.HANDSHAKE_MALFORMED, detail=detail))

    def _watch_writes(self) -> None:
        if self._writes is not None:
            self._writes.watch()

    def send_receive_event_to_app(self) -> None:
        """Pass on a whole message. Text that is not UTF-8 ends the connection with 1007 (RFC 6455 §8.1).

        uvicorn does the same, but logs a traceback each time. A client could fill the log with them.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application.

        uvicorn does not count a refusal of the handshake as an answer, and logs an error without an address after it.
        """
        await super().send(message)
        self._watch_writes()
        if self.transport.is_closing():
            self.handshake_complete = True

    # While a client takes nothing, nothing is read from it. The answers to its pings would fill the memory.

    def pause_writing(self) -> None:
        """Stop reading until the client has taken the bytes that wait for it."""
        super().pause_writing()
        self._watch_writes()
        self._pause_or_resume_reading()

    def resume_writing(self) -> None:
        """Continue reading, unless the application has a message to receive first."""
        super().resume_writing()
        self._pause_or_resume_reading()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message. Continue reading only if few bytes wait for the client."""
        message = await super().receive()
        self._pause_or_resume_reading()
        return message

    def keepalive_timeout(self) -> None:
        """Cut a client off that did not answer a ping in time. A close frame would wait until the client reads it."""
        super().keepalive_timeout()
        self.transport.abort()

    def _pause_or_resume_reading(self) -> None:
        if self.transport.is_closing():
            return
        if self.read_paused or not self.writable.is_set():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
