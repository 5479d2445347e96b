"""One WebSocket of an HTTP listener: uvicorn's protocol class, with bounds for broken text and for slow readers."""

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with bounds."""

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
        if self.transport.is_closing():
            self.handshake_complete = True

    # While a client takes nothing, nothing is read from it. The answers to its pings would fill the memory.

    def pause_writing(self) -> None:
        """Stop reading until the client has taken the bytes that wait for it."""
        super().pause_writing()
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
