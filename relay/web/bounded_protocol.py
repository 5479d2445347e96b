"""One HTTP connection: uvicorn's protocol class, with bounds on what a client can send.

uvicorn with httptools has no bounds. The size and the time of a request's head are limited here, and so is the rest of
a body after its answer. A few pipelined requests may wait. Trailers are dropped.
"""

import asyncio
from functools import partial
from typing import Any, Final

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from relay.net.admission import AdmissionQueue
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.web.answers import error_answer
from relay.web.headers import SECURITY_HEADERS

MAX_HEAD_BYTES: Final = 32_768
"""Bytes of the request line and headers. nginx passes four lines of 8 KB; the cookies of a whole site fit. Without this
bound, one header of 30 MB took 40 MB of memory."""
MAX_PIPELINED: Final = 8
"""Requests that wait for the answer to the request before them, 2 KB each. Browsers send none. Without this bound, one
read queued 13,000 requests."""
HEAD_WITHIN_S: Final = 5.0
"""Seconds for a whole head, from the connection or from its first byte on: as long as the WebSocket listener gives a
handshake. Without this bound, a head that comes byte by byte holds its connection (slowloris)."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds.

    The first bytes of a connection wait in `accept_queue`, if it is given. Connections that have not sent a whole head
    are counted in `unauthenticated`, if it is given.
    """

    head_within_s = HEAD_WITHIN_S

    def __init__(
        self,
        *args: Any,
        accept_queue: AdmissionQueue | None,
        unauthenticated: UnauthenticatedConnections | None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._accept_queue = accept_queue
        self._unauthenticated = unauthenticated
        self._counted_address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._idle_bytes = 0  # since the last piece of a body: trailers and chunk headers
        self._too_large = False
        self._upgraded = False

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """See `asyncio.Protocol`. The timer starts before the first byte: a silent connection costs a descriptor."""
        super().connection_made(transport)
        self._start_timer()
        self._count_unauthenticated()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        self._uncount_unauthenticated()
        super().connection_lost(exc)
        for cycle, _app in self.pipeline:  # requests that were not started, and that refer to this connection
            cycle.on_response = _nothing
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport.is_closing():
            return
        if (accept_queue := self._accept_queue) is not None:
            self._accept_queue = None
            self._stop_timer()
            self._uncount_unauthenticated()  # from here on the relay lets it wait
            self.transport.pause_reading()
            accept_queue.submit(partial(self._begin, data))
            return
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._idle_bytes += len(data)
        super().data_received(data)
        if self._upgraded or self.transport.is_closing():
            return
        if max(self._head_bytes, self._idle_bytes) > MAX_HEAD_BYTES:
            self._too_large = True
            self.send_400_response("")
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_timer()

    def _begin(self, first: bytes) -> bool:
        """Read the first bytes when the accept queue lets them through. Return False if the connection has gone."""
        if self.transport.is_closing():
            return False
        self._start_timer()
        self.transport.resume_reading()
        self.data_received(first)
        if self._in_head and self.cycle is None:
            self._count_unauthenticated()
        return True

    # the parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers are dropped (RFC 9110 §6.5.1): no proxy has checked them."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large or too many requests wait."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many pipelined requests")
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")  # stops the parser; uvicorn calls `send_400_response`
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        self._uncount_unauthenticated()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head. It may follow in the same bytes."""
        self._in_head = True
        self._head_bytes = self._idle_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Give the connection to uvicorn's WebSocket protocol, which has bounds of its own."""
        self._upgraded = True
        super().handle_websocket_upgrade()

    # uvicorn's own answers

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Answer a request that is not HTTP or too large, in the form of all errors, and close the connection."""
        if self._too_large:
            answer = error_answer(431, "too_large", f"A request's head has at most {MAX_HEAD_BYTES} bytes.")
        else:
            answer = error_answer(400, "invalid_request", "This is not an HTTP request.")
        self.transport.write(_serialize(answer))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing. A client that offers another protocol gets an answer in HTTP (RFC 9110 §7.8)."""

    # connections that have not sent a whole head

    def _count_unauthenticated(self) -> None:
        """Count the connection for its address, and cut it off if the address uses the room of others."""
        if self._unauthenticated is None or self.client is None or self.transport.is_closing():
            return
        self._counted_address = self.client[0]
        self._unauthenticated.add(self._counted_address)
        if self._unauthenticated.must_drop(self._counted_address, connections=self._unauthenticated.total):
            self.transport.abort()

    def _uncount_unauthenticated(self) -> None:
        """Stop counting the connection."""
        if self._unauthenticated is not None and self._counted_address:
            self._unauthenticated.remove(self._counted_address)
            self._counted_address = ""

    # the timer of a head, and of the rest of a body after its answer

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.head_within_s, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        self.transport.abort()


def _nothing() -> None:
    pass


def _serialize(response: Response) -> bytes:
    response.headers.update(SECURITY_HEADERS)  # the middleware that adds them does not see this answer
    fields = b"".join(b"%b: %b\r\n" % field for field in response.raw_headers)
    return STATUS_LINE[response.status_code] + fields + b"connection: close\r\n\r\n" + bytes(response.body)
