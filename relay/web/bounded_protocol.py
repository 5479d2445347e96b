"""One HTTP connection: uvicorn's protocol class, with bounds on what a client can send.

uvicorn with httptools has no bounds. The size and the time of a request's head are limited here, and so is the rest of
a body after its answer. Pipelined requests are answered in order, and are read only as fast as they are answered.
Trailers are dropped. In each state a timer runs that ends the connection of a client that does nothing:

    TLS handshake                         the handshake's own (`relay.net.tls_handshake`)
    no whole head yet, or the rest of a   `HEAD_WITHIN_S`, which a new byte does not extend
    body whose answer is written
    in the accept queue                   none: the relay lets the connection wait
    a request has no answer yet           the route's: `relay.web.bodies` for the body, and its own calls
    an answer is not taken                `relay.net.write_stalls`
    between two requests                  `keepalive_s`
    upgraded                              see `relay.web.bounded_websocket`
"""

import asyncio
import math
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr

from relay.core.errors import Reason, Refusal
from relay.net.admission import AdmissionQueue, LoadShedder
from relay.net.tls_handshake import TlsHandshake
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.net.write_stalls import STOPPED_WITHIN_S, WriteStalls
from relay.web.answers import error_answer, refusal_answer
from relay.web.bounded_websocket import BoundedWebSocket
from relay.web.client_link import ClientLink
from relay.web.head_limits import MAX_COOKIES, MAX_HEAD_BYTES, MAX_HEADERS, count_cookies, too_large
from relay.web.headers import SECURITY_HEADERS

MAX_PIPELINED: Final = 8
"""Requests that wait for the answer to the request before them, 2 KB each. Browsers send none. Further ones are not
read yet. Without this bound, one read queued 13,000 requests."""
HEAD_WITHIN_S: Final = 5.0
"""Seconds for a whole head, from the connection or from its first byte on: as long as the WebSocket listener gives a
handshake. Without this bound, a head that comes byte by byte holds its connection (slowloris)."""
CHUNKED_PIECE_BYTES: Final = 4096
"""Bytes of a chunked body that are parsed at once. Nobody knows where it ends, and requests may follow it."""
KEEPALIVE_S: Final = 75.0
"""Seconds between two requests. A proxy must be the first to close: nginx and Caddy keep connections for 60 s and
more, and a request on a connection that the relay has just closed is a 502."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """What the connections of one listener have in common.

    The first bytes of a connection wait in `accept_queue`. `shedder` refuses connections that would wait for too long;
    many are accepted in each turn of the loop then. Connections that wait for their clients are counted in
    `unauthenticated`. `refused` is called with each request that is refused here, before any route: with the refusal,
    the peer's address and the headers that were read.
    """

    tls: ssl.SSLContext | None = None
    keepalive_s: float = KEEPALIVE_S
    accept_queue: AdmissionQueue | None = None
    shedder: LoadShedder | None = None
    unauthenticated: UnauthenticatedConnections | None = None
    refused: Callable[[Refusal, str, Sequence[tuple[bytes, bytes]]], None] | None = None


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds."""

    head_within_s = HEAD_WITHIN_S

    def __init__(self, *args: Any, connection_options: ConnectionOptions, **options: Any) -> None:
        super().__init__(*args, **options)
        self._options = connection_options
        self._tls = connection_options.tls  # None as soon as the handshake has ended
        self._accept_queue = connection_options.accept_queue
        self._shedder = connection_options.shedder
        self._arrived = 0.0  # when the first bytes of a request came, if they had to wait
        self._client_link = ClientLink()
        self._counted_address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_is_idle = False
        self._writes: WriteStalls | None = None
        self._unread = b""  # from `_next` on: what has come and is not parsed yet
        self._next = 0
        self._in_head = True
        self._head_bytes = 0
        self._idle_bytes = 0  # since the last piece of a body: trailers and chunk headers
        self._body_left: int | None = 0  # None: chunked
        self._cookies = 0
        self._too_large = False
        self._refusal: Refusal | None = None
        self._answered: RequestResponseCycle | None = None  # the request that the application has
        self._upgraded = False

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """See `asyncio.Protocol`. The timer starts before the first byte: a silent connection costs a descriptor."""
        if self._tls is None:
            self._made(transport)
            self._count_unauthenticated()
            return
        self.transport = transport
        self.client = get_remote_addr(transport)
        self.connections.add(self)  # so that a relay that stops ends the handshake
        self._count_unauthenticated()
        if not transport.is_closing():
            TlsHandshake(transport, self._tls, self)

    def connection_secured(self, transport: asyncio.Transport) -> None:
        """See `relay.net.tls_handshake.Owner`."""
        self._tls = None
        self._made(transport)

    def _made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._client_link.made(transport)
        self._writes = WriteStalls(self.loop, transport)
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        if self._writes is not None:
            self._writes.stop()
        self._uncount_unauthenticated()
        if self.cycle is None and (unauthenticated := self._options.unauthenticated) is not None:
            unauthenticated.unserved += 1
        if self._answered is not None:  # uvicorn tells only the newest request that the client has gone
            self._answered.disconnected = True
            self._answered.message_event.set()
            self._answered = None
        super().connection_lost(exc)
        self._client_link.lost()
        self._unset_keepalive_if_required()
        for cycle, _app in self.pipeline:  # requests that were not started, and that refer to this connection
            cycle.on_response = _nothing
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        if (accept_queue := self._accept_queue) is not None:
            self._accept_queue = None
            self._stop_timer()
            self._uncount_unauthenticated()  # from here on the relay lets it wait
            self._arrived = self.loop.time()
            if (shedder := self._shedder) is not None:
                wait_s = shedder.retry_after_s(self._arrived, accept_queue, shedder.admission_queue)
                if wait_s is not None:  # nothing is parsed for it: a crowd must cost little
                    self.transport.write(_busy_bytes(math.ceil(wait_s)))
                    self.transport.close()
                    return
            self.transport.pause_reading()
            accept_queue.submit(partial(self._begin, data))
            return
        self._unread, self._next = self._unread[self._next :] + data, 0
        self._read()

    def _begin(self, first: bytes) -> bool:
        """Read the first bytes when the accept queue lets them through. Return False if the connection has gone."""
        if self.transport.is_closing():
            return False
        self.transport.resume_reading()
        self.data_received(first)
        return True

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the client takes less than it gets."""
        super().pause_writing()
        self._watch_writes()
        self._count_waiting()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the client has taken what waited."""
        super().resume_writing()
        self._count_waiting()

    def shutdown(self) -> None:
        """End the connection after the answer that is being made: the relay stops."""
        super().shutdown()
        self.loop.call_later(STOPPED_WITHIN_S, self.transport.abort)

    # reading, as fast as requests are answered

    def _read(self) -> None:
        """Parse what has come, a head or a piece of a body at a time, while few requests wait for their answers."""
        while self._next < len(self._unread) and not self._upgraded:
            if self._in_head and len(self.pipeline) >= MAX_PIPELINED:
                self.flow.pause_reading()
                break
            piece = self._unread[self._next : self._next + self._piece_bytes()]
            self._next += len(piece)
            if self._in_head:
                self._head_bytes += len(piece)
            else:
                self._idle_bytes += len(piece)
            super().data_received(piece)
            if max(self._head_bytes, self._idle_bytes) > MAX_HEAD_BYTES and self._refusal is None:
                self._too_large = True
                self.send_400_response("")
            if self.transport.is_closing() or self._refusal is not None:
                break
        else:
            self._unread, self._next = b"", 0
        self._set_timer()
        self._count_waiting()

    def _piece_bytes(self) -> int:
        if self._in_head:
            end = self._unread.find(b"\n\r\n", self._next) + 3
            most = MAX_HEAD_BYTES + 1
            return min(end - self._next, most) if end > 2 else most
        return CHUNKED_PIECE_BYTES if self._body_left is None else max(self._body_left, 1)

    # the parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers are dropped (RFC 9110 §6.5.1): no proxy has checked them."""
        if not self._in_head:
            return
        if len(name) == 6 and name.lower() == b"cookie":
            self._cookies += count_cookies(value)
        if len(self.headers) >= MAX_HEADERS or self._cookies > MAX_COOKIES:
            self._too_large = True
            raise ValueError("the head is too large")  # stops the parser; uvicorn calls `send_400_response`
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body."""
        self._idle_bytes = 0
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")
        self._body_left = _body_bytes(self.headers)
        if (
            self.parser.should_upgrade()
            and self._should_upgrade()
            and (self._body_left != 0 or self._answering)
        ):
            # uvicorn would wait for the body, and begin the WebSocket among the answers
            raise ValueError("a handshake has no body, and no request before it that is not answered")
        self._in_head = False
        self._head_bytes = self._cookies = 0
        self._stop_timer()
        self._uncount_unauthenticated()
        arrived, self._arrived = self._arrived or self.loop.time(), 0.0
        # the target as it came: the scope has only the path and the query that were parsed from it
        self.scope["state"] |= {"arrived": arrived, "presence": self._client_link, "target": self.url}
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head. It may follow in the same bytes."""
        self._in_head = True
        self._head_bytes = self._idle_bytes = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, with the refusal that waits for this answer, or with what has come already."""
        is_last = not self.pipeline
        self._answered = None
        super().on_response_complete()
        self._unset_keepalive_if_required()  # `_set_timer` has a timer for it
        self._watch_writes()
        if self.transport.is_closing():
            return
        if self._refusal is None:
            self._read()
        elif is_last:
            self._write_refusal(self._refusal)

    @property
    def _answering(self) -> bool:
        """Whether a request has no whole answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def handle_websocket_upgrade(self) -> None:
        """Give the connection to uvicorn's WebSocket protocol, which has bounds of its own."""
        self._upgraded = True
        self._stop_timer()
        self.ws_protocol_class = partial(BoundedWebSocket, refuse=self._refuse_handshake)  # type: ignore[assignment]  # called like a class
        super().handle_websocket_upgrade()

    def _refuse_handshake(self, refusal: Refusal) -> None:
        self._note_refusal(refusal)
        answer = refusal_answer(refusal, message=refusal.detail)
        answer.headers["Sec-WebSocket-Version"] = "13"  # RFC 6455 §4.4: the version may have been wrong
        self.transport.write(_serialize(answer))
        self.transport.close()

    # uvicorn's own answers

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Refuse a request that is not HTTP or too large, in the form of all errors, and close the connection.

        The requests before it are answered first.
        """
        refusal = (
            too_large()
            if self._too_large
            else Refusal(reason=Reason.REQUEST_MALFORMED, detail="This is not an HTTP request.")
        )
        self._refusal = refusal
        self._note_refusal(refusal)
        if not self._in_head and self.pipeline:
            self.pipeline.popleft()[0].on_response = _nothing  # its body is broken, and it was not started
        elif not self._in_head or not self._answering:
            self._write_refusal(refusal)
            return
        self.flow.pause_reading()

    def _note_refusal(self, refusal: Refusal) -> None:
        if self._options.refused is not None:
            peer = self.client[0] if self.client else ""
            self._options.refused(refusal, peer, self.headers or ())

    def _write_refusal(self, refusal: Refusal) -> None:
        if self._answering and self.cycle.response_started and not self._in_head:
            self.transport.abort()  # half of an answer can't be followed by another
            return
        self.transport.write(_serialize(refusal_answer(refusal, message=refusal.detail)))
        self.transport.close()
        self._watch_writes()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing. A client that offers another protocol gets an answer in HTTP (RFC 9110 §7.8), and the last one.

        The parser reads nothing more after the offer.
        """
        self.cycle.keep_alive = False

    # connections that wait for their clients

    def _count_waiting(self) -> None:
        """Count the connection if it waits for its client. End it if the address, or all together, have too many.

        It waits for a head, for the rest of a body, for the next request, or for an answer to be taken.
        """
        unauthenticated = self._options.unauthenticated
        if unauthenticated is None or self._upgraded:
            return
        if self._answering and self._in_head and not self.flow.write_paused:
            self._uncount_unauthenticated()
            return
        self._count_unauthenticated()
        is_served = self.cycle is not None and self._in_head and not self._head_bytes
        if is_served and self._counted_address and not unauthenticated.may_idle(self._counted_address):
            if self.flow.write_paused:
                self.transport.abort()
            else:
                self.transport.close()  # after the last answer

    def _count_unauthenticated(self) -> None:
        """Count the connection for its address, and cut it off if the address uses the room of others."""
        unauthenticated = self._options.unauthenticated
        if unauthenticated is None or self.client is None or self.transport.is_closing():
            return
        if self._counted_address:
            return
        self._counted_address = self.client[0]
        unauthenticated.add(self._counted_address)
        if unauthenticated.must_drop(self._counted_address, connections=unauthenticated.total):
            self.transport.abort()

    def _uncount_unauthenticated(self) -> None:
        """Stop counting the connection."""
        if self._options.unauthenticated is not None and self._counted_address:
            self._options.unauthenticated.remove(self._counted_address)
            self._counted_address = ""

    # the timers: see the module's table

    def _set_timer(self) -> None:
        """Run the timer of the present state. If the state is the same as before, it runs on."""
        if self.transport.is_closing() or self._upgraded or self._answering:
            self._stop_timer()
            return
        is_idle = self._in_head and not self._head_bytes and self.cycle is not None
        if self._timer is None or self._timer_is_idle != is_idle:
            self._stop_timer()
            self._timer_is_idle = is_idle
            within_s = self._options.keepalive_s if is_idle else self.head_within_s
            self._timer = self.loop.call_later(within_s, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if self._timer_is_idle and self.transport.get_write_buffer_size():
            self._set_timer()  # it still reads the last answer
        else:
            self.transport.abort()

    def _watch_writes(self) -> None:
        if self._writes is not None:
            self._writes.watch()


def _nothing() -> None:
    pass


def _body_bytes(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Return the length of a body, as the headers say; None for a chunked one. The parser has checked them."""
    length: int | None = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value)
    return length


def busy_answer(retry_after_s: float) -> Response:
    """Return the answer to a request that could not be served in time."""
    return error_answer(
        503,
        "unavailable",
        "More requests came than can be served now. Try again after the time in Retry-After.",
        retryable=True,
        retry_after_s=retry_after_s,
    )


@lru_cache(maxsize=256)
def _busy_bytes(retry_after_s: int) -> bytes:
    return _serialize(busy_answer(retry_after_s))


def _serialize(response: Response) -> bytes:
    response.headers.update(SECURITY_HEADERS)  # the middleware that adds them does not see this answer
    fields = b"".join(b"%b: %b\r\n" % field for field in response.raw_headers)
    return STATUS_LINE[response.status_code] + fields + b"connection: close\r\n\r\n" + bytes(response.body)
