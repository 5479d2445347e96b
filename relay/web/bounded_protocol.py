"""One HTTP connection: uvicorn's, with bounds on what a client may send before anybody has looked at it.

uvicorn on httptools sets none: a request's head may be of any size, all of it in memory (30 MB of one header took
40 MB, seen), and may take for ever to come (slowloris). A client that goes on sending the body of a request that
was answered already keeps its connection just as long, because each byte resets the only timer there is. Here a
head has a size and a time, and so has the rest of a body that nobody wants any more. It queues as many requests as
come before their answers, 13,000 in one read, and takes trailers for headers, however many: here a few requests may
wait, and trailers are dropped (RFC 9110 §6.5.1), because no proxy has looked at them.
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
"""Request line and headers. Proxies pass 8 KB a line, nginx four of those; cookies of a whole site fit."""
MAX_PIPELINED: Final = 8
"""Requests that wait for the answer to the one before, 2 KB each. Browsers send none."""
HEAD_WITHIN_S: Final = 5.0
"""Seconds from the first byte to a whole head, as long as the stream's listener gives a handshake."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds. `accept_queue`: where first bytes wait until they are read, if they do.

    `unauthenticated` counts by address who has not sent a request yet, if they are counted.
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
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._idle_bytes = 0  # since the last piece of a body: trailers, and what chunks say about themselves
        self._too_large = False
        self._upgraded = False

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """See `asyncio.Protocol`. The clock begins before the first byte: silent connections cost a file each."""
        super().connection_made(transport)
        self._start_clock()
        self._count_unauthenticated()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_clock()
        self._uncount_unauthenticated()
        super().connection_lost(exc)
        for cycle, _app in self.pipeline:  # never begun, and each refers to this connection
            cycle.on_response = _nothing
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport.is_closing():
            return
        if (accept_queue := self._accept_queue) is not None:
            self._accept_queue = None
            self._stop_clock()
            self._uncount_unauthenticated()  # it has said something; that it has to wait is no fault of its own
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
        elif self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._start_clock()

    def _begin(self, first: bytes) -> bool:
        """Go on from the accept queue. Tells whether the connection is still there."""
        if self.transport.is_closing():
            return False
        self._start_clock()
        self.transport.resume_reading()
        self.data_received(first)
        if self._in_head and self.cycle is None:
            self._count_unauthenticated()
        return True

    # the parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer is none."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Pass the request on, unless its head is too large or too many wait already."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests wait")
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")  # ends the parsing, and then in `send_400_response`
        self._in_head = False
        self._head_bytes = 0
        self._stop_clock()
        self._uncount_unauthenticated()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head, which may follow in the same chunk of bytes."""
        self._in_head = True
        self._head_bytes = self._idle_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to uvicorn's WebSocket protocol, and its time and sizes too."""
        self._upgraded = True
        super().handle_websocket_upgrade()

    # uvicorn's own answers

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Answer what is no HTTP request in the form that all errors have, and end the connection."""
        if self._too_large:
            answer = error_answer(431, "too_large", f"A request's head has at most {MAX_HEAD_BYTES} bytes.")
        else:
            answer = error_answer(400, "invalid_request", "This is not an HTTP request.")
        self.transport.write(_serialize(answer))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a client that offers another protocol is answered in this one (RFC 9110 §7.8)."""

    # who has sent nothing yet, or no whole head

    def _count_unauthenticated(self) -> None:
        """Count it for its address, and cut it off if that takes the room of others."""
        if self._unauthenticated is None or self.client is None or self.transport.is_closing():
            return
        self._counted_address = self.client[0]
        self._unauthenticated.add(self._counted_address)
        if self._unauthenticated.must_drop(self._counted_address, connections=self._unauthenticated.total):
            self.transport.abort()

    def _uncount_unauthenticated(self) -> None:
        """Count it no more."""
        if self._unauthenticated is not None and self._counted_address:
            self._unauthenticated.remove(self._counted_address)
            self._counted_address = ""

    # the clock

    def _start_clock(self) -> None:
        self._deadline = self.loop.call_later(self.head_within_s, self._too_late)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        self.transport.abort()


def _nothing() -> None:
    pass


def _serialize(response: Response) -> bytes:
    response.headers.update(SECURITY_HEADERS)  # no application is asked, so none of its layers puts them on
    fields = b"".join(b"%b: %b\r\n" % field for field in response.raw_headers)
    return STATUS_LINE[response.status_code] + fields + b"connection: close\r\n\r\n" + bytes(response.body)
