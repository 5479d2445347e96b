"""uvicorn's WebSocket protocol without its two weak places: what clients send wrong, and clients that do not read."""

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket of an HTTP listener."""

    def send_receive_event_to_app(self) -> None:
        """Pass a whole message on. Text that is not UTF-8 ends the connection with 1007 (RFC 6455 §8.1).

        uvicorn would do the same, and log a traceback each time: a client could fill the log with them.
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

    # A client that takes nothing is not read from: the pongs to its pings would pile up here without end.

    def pause_writing(self) -> None:
        """Read no more until the client has taken what waits for it."""
        super().pause_writing()
        self._read_or_wait()

    def resume_writing(self) -> None:
        """Read on, unless the application has a message to take first."""
        super().resume_writing()
        self._read_or_wait()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message, and read on only if what waits for the client is little."""
        message = await super().receive()
        self._read_or_wait()
        return message

    def keepalive_timeout(self) -> None:
        """Let a client go that answered no ping in time. An orderly close would wait for it to read, for ever."""
        super().keepalive_timeout()
        self.transport.abort()

    def _read_or_wait(self) -> None:
        if self.transport.is_closing():
            return
        if self.read_paused or not self.writable.is_set():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
