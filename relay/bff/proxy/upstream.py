"""Connections to the backend: a bounded pool, and one exchange of HTTP/1.1 at a time on each of them.

The backend is read while the request's body is sent. A backend that refuses an upload answers early and closes. httpx
reads only after the body was sent, so that an early 413 was lost and became a `ReadError`.

h11 has the protocol: it checks the framing, drops trailers, and knows whether a connection can be used again.
"""

import asyncio
import contextlib
import os
import select
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import h11

from relay.bff.proxy.headers import Headers
from relay.core.errors import RelayError
from relay.net.http_client import certificates_for

HIGH_WATER: Final = 262_144
"""Bytes of an answer that wait for the browser. Then the backend is not read until they are gone."""
MAX_HEAD_BYTES: Final = 65_536
"""Longest head of an answer."""
MAX_EARLY_HEADS: Final = 64
"""Heads of 1xx, and the one of the answer after them. A thousand in one read would hold the event loop for 20 ms."""


class UpstreamError(RelayError):
    """The backend could not be reached, broke off, or did not speak HTTP. The text never quotes what it sent."""

    def __init__(self, detail: str, *, untouched: bool = False, late: bool = False) -> None:
        """`untouched`: a kept connection was closed before a byte of the answer came. `late`: it took too long."""
        super().__init__(detail)
        self.untouched = untouched
        self.late = late


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer, whose status is 200 to 599."""

    status: int
    headers: Headers


class Connection(asyncio.Protocol):
    """One connection. The pool opens it, and gives it to one call at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._unread = 0
        self._paused = False
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._waiting: asyncio.Future[None] | None = None
        self._lost = False
        self._answered = False
        self.used = 0
        """Exchanges that were begun on it."""
        self.idle_since = 0.0

    # asyncio's callbacks

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._unread += len(data)
        if self._unread > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._receive(data)

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. What was read before is still an answer, so it stays open; TLS can't do that."""
        self._receive(b"")
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if exc is not None and not self._lost:
            self._receive_rest()
        if not self._lost:
            self._lost = True
            with contextlib.suppress(h11.ProtocolError, RuntimeError):  # the end may have come before
                self._h11.receive_data(b"")
        self._can_write.set()
        self._wake()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._can_write.set()

    def _receive(self, data: bytes) -> None:
        self._answered = self._answered or bool(data)
        if not data:
            self._lost = True
        with contextlib.suppress(h11.ProtocolError, RuntimeError):  # `next_event` tells it
            self._h11.receive_data(data)
        self._wake()

    def _receive_rest(self) -> None:
        """Take the answer that the socket still holds.

        A backend that refuses an upload answers and closes. asyncio gives a connection up at the first write that
        fails, and never reads what came before. The socket is open until `connection_lost` returns. What TLS has not
        decrypted is lost.
        """
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(OSError):  # nothing more is there, or the reset was reported before
            while data := os.read(transport.get_extra_info("socket").fileno(), HIGH_WATER):
                self._receive(data)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # one exchange

    @property
    def is_usable(self) -> bool:
        """Whether another exchange can begin: nothing came since the last one, and the backend did not close.

        The socket is asked, too: an end that the loop has not read yet would lose a write, which is never sent twice.
        """
        if self._lost or self._unread or self._transport is None or self._transport.is_closing():
            return False
        return not self._is_readable(self._transport)

    def begin(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of a request."""
        self.used += 1
        self._answered = False
        self._send(h11.Request(method=method, target=target, headers=headers))

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body, and wait while the backend reads more slowly than it is sent.

        Nothing is sent while something of the backend waits in the socket: over TLS, a write to a closed connection
        would lose the answer that is already here.
        """
        while self._has_unread_answer():  # noqa: ASYNC110  # the transport has no event for it
            await asyncio.sleep(0)  # the loop reads it in its next turn
        self._send(h11.Data(data=piece))
        await self._can_write.wait()

    def end_body(self) -> None:
        """Say that the request is complete."""
        self._send(h11.EndOfMessage())

    async def head(self) -> Head:
        """Wait for the head of the answer. Heads of 1xx are no answers.

        Raises:
            UpstreamError: see there.
        """
        for _ in range(MAX_EARLY_HEADS):
            event = await self._next_event()
            if isinstance(event, h11.Response):
                if not 200 <= event.status_code <= 599:
                    raise UpstreamError("The backend's status is none of HTTP.")
                return Head(event.status_code, list(event.headers))
            if not isinstance(event, h11.InformationalResponse):
                break
        raise self._broken()

    async def piece(self) -> bytes | None:
        """Return the next piece of the answer's body, or None after the last. Raises as `head` does."""
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise self._broken()

    def finish(self) -> bool:
        """End an exchange whose answer was read whole. Return whether the connection can be used again."""
        try:
            self._h11.start_next_cycle()
        except h11.ProtocolError:
            return False
        self._unread = len(self._h11.trailing_data[0])
        return self.is_usable

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, event: "h11.Event") -> None:
        try:
            data = self._h11.send(event)
        except h11.ProtocolError:
            raise self._broken() from None
        if not data:  # the end of a request without a body
            return
        if self._transport is None or self._lost or self._transport.is_closing():
            raise self._broken()
        self._transport.write(data)

    def _has_unread_answer(self) -> bool:
        if self._transport is None or self._transport.is_closing() or self._unread or self._lost:
            return False
        return self._is_readable(self._transport)

    @staticmethod
    def _is_readable(transport: asyncio.Transport) -> bool:
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def _next_event(self) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.ProtocolError:
                raise self._broken() from None
            if event is not h11.NEED_DATA:
                return event
            self._unread = 0
            if self._paused and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()
            if self._lost:
                raise self._broken()
            await self._more()

    async def _more(self) -> None:
        """Wait until something comes from the backend."""
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _broken(self) -> UpstreamError:
        if self._lost and not self._answered:
            return UpstreamError(
                "The backend closed the connection without an answer.", untouched=self.used > 1
            )
        return UpstreamError("The backend broke off, or its answer is not HTTP.")


class Upstream:
    """The connections to one origin: at most `connections` of them, counted from their opening to their end."""

    def __init__(self, origin: str, *, connections: int, keepalive_s: float, connect_within_s: float) -> None:
        parts = urlsplit(origin)
        assert parts.hostname is not None  # the settings check that
        self.origin = origin
        self.authority = parts.netloc.encode("ascii")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls: Any = None
        self._keepalive_s = keepalive_s
        self._connect_within_s = connect_within_s
        self._places = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()

    @property
    def open(self) -> int:
        """The number of connections that are open now."""
        return len(self._open)

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Return a connection that nobody else uses. Give it back with `release`. `fresh`: not a kept one.

        Raises:
            UpstreamError: the backend can't be reached.
        """
        await self._places.acquire()
        try:
            oldest = asyncio.get_running_loop().time() - self._keepalive_s
            while self._idle:
                connection = self._idle.pop()
                if not fresh and connection.is_usable and connection.idle_since > oldest:
                    return connection
                self._drop(connection)
            return await self._connect()
        except BaseException:
            self._places.release()
            raise

    def release(self, connection: Connection, *, whole: bool) -> None:
        """Give a connection back. `whole`: its answer was read to the end. Otherwise it is closed."""
        self._places.release()
        if whole and connection.finish():
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            self._drop(connection)

    async def aclose(self) -> None:
        """Close all connections."""
        self._idle.clear()
        for connection in list(self._open):
            self._drop(connection)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self.origin.startswith("https://") and self._tls is None:
            self._tls = certificates_for(self.origin)
        try:
            async with asyncio.timeout(self._connect_within_s):
                _, connection = await loop.create_connection(
                    partial(Connection, loop),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            raise UpstreamError("The backend took no connection in time.", late=True) from None
        except OSError as error:
            # not the error's own text: it names the host
            raise UpstreamError(f"The backend can't be reached: {type(error).__name__}.") from None
        self._open.add(connection)
        return connection

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.abort()
