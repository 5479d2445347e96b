"""One WebSocket connection: the library's class, with a sink for the hub and bounds on what a client can do.

Which phase a connection is in, and what is allowed in it, is decided by `relay.stream.lifecycle`. This module tells it
what the library and the transport have done.

All frames to the client go through the transport's own `write`, never through the library's `send`, so that
acknowledgements and data keep their order.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CONNECTING, OPEN, Protocol
from websockets.protocol import Event as ReceivedEvent
from websockets.server import ServerProtocol

from relay.core.closes import Close, CloseCode, close_for
from relay.core.errors import Reason, Refusal
from relay.core.subscribers import Pack
from relay.net.admission import AdmissionQueue
from relay.net.tls_handshake import TlsHandshake
from relay.stream.compression import Compressor
from relay.stream.fanout import encode
from relay.stream.gate import Admitted, GateResult
from relay.stream.handshake import refusal_of, refusal_response, usual_request
from relay.stream.lifecycle import LIVE, READABLE, TIMERS, UNANSWERED, Event, Phase, Timer, next_phase
from relay.stream.outgoing import CLOSE_TIMEOUT_S, Outgoing
from relay.web.head_limits import MAX_HEAD_BYTES, too_large

PAUSE_READING_BYTES = 65_536
"""Bytes waiting to be sent at which reading from the client pauses. A client that sends and does not read would fill
the relay's memory with the answers to its pings."""
READ_SLICE_BYTES = 4096
"""Bytes parsed at once: at most some 680 frames, about 10 ms. After each slice the connection is checked again. Without
slices, one read of 256 KiB of pings held the loop for half a second."""
MAX_UNHANDLED_FRAMES = 256
"""Frames that were read and not handled yet. The rate limit closes long before that; only a message in more fragments
gets here, and no client needs one."""
MAX_EARLY_CONTROL_FRAMES = 20
"""Pings and pongs before the token. Browsers send none, and no rate limit counts them yet."""
SILENT_ROUNDS = 3
"""Rounds of pings without any byte from the client, after which it is taken for dead: 40 s after the first ping that
had no answer."""

_NO_HEADERS = Headers()
_PING = b"\x89\x00"


def _given(answer: Response | Exception, *_: Any) -> Response:
    """Answer a request as it was decided before. See `process_request` of the library's `serve`."""
    if isinstance(answer, Exception):
        raise answer
    return answer


class _HandedOver(asyncio.Transport):
    """The transport that the library has after `hand_over`: its handler cuts it off, which does nothing."""

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""


class StreamConnection(Outgoing, ServerConnection):
    """The library's connection with the relay's hooks.

    `on_made` and `on_lost` are called when the TCP connection is made and lost. With `tls` it is made before the TLS
    handshake. `on_refused` is called when a request can't be read, or is too large. The first bytes wait in
    `accept_queue`, and most of the work of an end in `closing_queue`: thousands of connections can end in one turn of
    the event loop.
    """

    # With the library's own attributes there would be more than the 30 whose names instances can share.
    __slots__ = (
        "_accept_queue",
        "_closing_queue",
        "_early_control_frames",
        "_head",
        "_head_bytes",
        "_on_lost",
        "_on_made",
        "_on_refused",
        "_peer",
        "_reading_paused",
        "_silent_rounds",
        "_tls",
        "gate_result",
        "opened_at",
    )

    encode = staticmethod(encode)
    accepted_status = 101

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        on_made: "Callable[[StreamConnection], None]",
        on_lost: "Callable[[StreamConnection], None]",
        on_refused: "Callable[[StreamConnection, Refusal], None]",
        accept_queue: AdmissionQueue,
        closing_queue: AdmissionQueue,
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        super().__init__(protocol, server, **options)
        self.phase = Phase.ACCEPTED if tls is None else Phase.SECURING
        self._tls = tls  # None as soon as the handshake has ended
        self.opened_at = time.time()
        self._start(time.monotonic())
        self.gate_result: GateResult | None = None
        """What the gate has decided with the handshake, for the handler."""
        self._on_made = on_made
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._accept_queue = accept_queue
        self._closing_queue = closing_queue
        self._silent_rounds = 0  # rounds of pings since the client was last heard
        self._reading_paused = False
        self._early_control_frames = 0
        self._head = b""  # the answer to the handshake, until it is written with the first frames
        self._head_bytes = 0
        self._peer: Any = None

    @property
    def remote_address(self) -> Any:
        """Return the peer's address, also when the TCP connection is gone: the transport doesn't know it then."""
        return self._peer

    def ending(self) -> tuple[int, Reason, str]:
        """Return the close code, the reason, and who began the close: "relay", "client" or "network"."""
        if self.ended is not None:
            return int(self.ended.code), self.ended.reason, "relay"
        protocol = self.protocol
        if protocol.close_rcvd is not None and protocol.close_rcvd_then_sent:
            return protocol.close_rcvd.code, Reason.CLIENT_CLOSED, "client"
        if protocol.close_sent is not None:  # the library failed the connection (RFC 6455 §7.1.7)
            is_too_large = protocol.close_sent.code == CloseCode.TOO_LARGE
            return (
                protocol.close_sent.code,
                Reason.FRAME_TOO_LARGE if is_too_large else Reason.FRAME_MALFORMED,
                "relay",
            )
        return int(CloseCode.ABNORMAL), Reason.LINK_LOST, "network"

    # what the service, the registry and the heartbeat loop call

    def pack(self, compressor: Compressor) -> Pack | None:
        """Return how batches are packed for the client, if it has negotiated that."""
        return compressor.websocket_batch if self.protocol.extensions else None

    def forget_handshake(self) -> None:
        """Free what only the handshake needed: 3.5 KB, with the token in it."""
        # the request itself stays: without one, the library would take the next frame for it; its parser may have it
        if self.request is not None:
            self.request.path, self.request.headers = "", _NO_HEADERS
        self.response = self.gate_result = None

    def end(self, close: Close) -> None:
        """Send a close frame without waiting. The connection is cut if the client doesn't answer in time."""
        self._detach(close.reason)
        if self.phase in LIVE:
            self.ended = close
            self.protocol.send_close(close.code, close.text)
            self.send_data()

    def abort(self) -> None:
        """Cut the TCP connection at once."""
        self._advance(Event.ABORTED)
        self.transport.abort()

    def _ping(self) -> None:
        """See `Outgoing`. The library's own ping timeout does not run while its `drain()` waits, when it is needed."""
        self._silent_rounds += 1
        if self._silent_rounds >= SILENT_ROUNDS:
            self.drop(close_for(Reason.NO_PONG))
        else:
            self.write(_PING)

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        """Give the transport to `protocol`, for an answer that is no WebSocket and has no end. None: it has gone.

        The library is told that the connection was lost. What it returns from `process_request` would be the whole
        answer, and what is written before that ends with its `open_timeout`.
        """
        if self.phase is not Phase.HANDSHAKE or self.transport.is_closing():
            return None
        transport = self.transport
        transport.set_protocol(protocol)
        self.transport = _HandedOver()
        self._advance(Event.HANDED_OVER)
        self._lost(None)
        return transport

    # changes of phase

    def _advance(self, event: Event) -> Phase:
        """Go to the phase that follows `event`, and start that phase's timer if it is one of the connection's own."""
        before, self.phase = self.phase, next_phase(self.phase, event)
        if self.phase is not before:
            timer = TIMERS[self.phase]
            if self._tls is not None:  # aborted in SECURING, or failed there: the library never had it
                if timer is Timer.RELEASE:
                    self.loop.call_soon(self._break_cycles)
            elif timer is Timer.ABORT:
                # the library cuts an unanswered close only for callers of its own `close`
                self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)
            elif timer is Timer.RELEASE:
                # not at once: a server that stops may be about to call `close`
                self.loop.call_later(CLOSE_TIMEOUT_S, self._closing_queue.submit, self._break_cycles)
        return self.phase

    def _break_cycles(self) -> bool:
        """Cut the references between this connection, the library's protocol object and the transport.

        Reference counting then frees all three. Without this they are left to the cycle collector, which looks at each
        object of every open connection; see `relay.server.gc_tuning`.
        """
        vars(self.protocol).clear()
        vars(self).clear()
        del self.write, self.pending
        return True

    # the library's hooks

    async def handshake(self, process_request: Any = None, *others: Any) -> None:
        """See `ServerConnection.handshake`, which the connection's task calls first.

        The library's does the same. It waits for either of two futures, and for the bytes to be written: 15 µs of CPU
        more. It still answers with everything but 101.
        """
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(self._handler_ended)
        await self.request_rcvd  # or until the TCP connection is lost: `_lost`
        if self.request is None:
            return
        answer: Response | Exception
        try:
            answer = await process_request(self, self.request)
        except Exception as error:  # noqa: BLE001  # the library logs it, and answers 500
            answer = error
        if (
            isinstance(answer, Response)
            and answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS
            and self.server.is_serving()
            and self.protocol.state is CONNECTING
        ):
            self.response = answer
            self.protocol.send_response(answer)
            self.send_data()
        else:
            await super().handshake(partial(_given, answer), *others)

    def _handler_ended(self, _task: "asyncio.Task[None]") -> None:
        self._advance(Event.HANDLER_ENDED)

    def send_data(self) -> None:
        """Write what the library has to say. The library calls this after each change of its state.

        So this is where the library's close frame is seen, for each cause: the client's close, a frame that breaks the
        protocol, text that is not UTF-8. The hub must not write after it.
        """
        if self.phase in UNANSWERED:
            error = self.protocol.handshake_exc
            if self.request is None and error is not None and not self.protocol.reader.eof:
                self._refuse(refusal_of(error))
                return
            if self.response is None and error is None:
                # the only thing to write is the answer to a frame that came too early: see `process_event`
                if self.protocol.data_to_send():
                    self.abort()
                return
            is_open = self.protocol.state is OPEN
            self._advance(Event.HANDSHAKE_ACCEPTED if is_open else Event.HANDSHAKE_REFUSED)
            if is_open and isinstance(self.gate_result, Admitted):
                # its first frames follow in this turn or the next; a client without a token yet waits for the 101
                self._head = b"".join(self.protocol.data_to_send())
                self.write = self._write_first
                return
        elif self.phase in LIVE and self.protocol.state is not OPEN:
            self._detach(Reason.CLIENT_CLOSED)
            self._advance(Event.CLOSE_WRITTEN)
        if self._head:
            self._write_first(b"")
        super().send_data()

    def _write_first(self, data: bytes) -> None:
        """Write the answer to the handshake and the first frames at once. One call of `send` costs 4 % of a connect."""
        head, self._head = self._head, b""
        self.write = self.transport.write
        if self._subscriber is not None:
            self._subscriber.write = self.write
        self.write(head + data)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer a request that can't be read, in the place of the library, and close the connection."""
        self._advance(Event.HANDSHAKE_REFUSED)
        self.protocol.data_to_send()  # the library's own answer, or none
        self.write(refusal_response(refusal).serialize())
        if self.transport.can_write_eof():
            self.transport.write_eof()  # a close would discard the answer if more of the request is on its way
        self._on_refused(self, refusal)

    def process_event(self, event: ReceivedEvent) -> None:
        """Handle a frame. Pings and pongs count like messages, because an answer costs as much."""
        opcode = event.opcode if isinstance(event, Frame) else None
        if opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE) and self.phase in UNANSWERED:
            self.abort()  # a client must wait for the handshake's answer (RFC 6455 §4.1)
            return
        if self.request is None and self.request_rcvd.cancelled():
            return  # the time for the handshake was over in this turn, and its task is about to cut the connection
        super().process_event(event)
        if opcode not in (Opcode.PING, Opcode.PONG):
            return
        if self.client is not None:
            # the answer to the relay's own ping comes every 20 s, and the rate limit has room for it
            close = self.client.control_frame(time.monotonic())
            if close is not None:
                self.end(close)
        elif self.phase is Phase.UNAUTHENTICATED:
            self._early_control_frames += 1
            if self._early_control_frames > MAX_EARLY_CONTROL_FRAMES:
                self.drop(close_for(Reason.FRAMES_TOO_FAST))

    # asyncio's callbacks

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`. Over TLS the library gets the connection after the handshake."""
        self._peer = transport.get_extra_info("peername")
        self._use(transport)
        if self._tls is None:
            super().connection_made(transport)
        self._on_made(self)
        if self._tls is not None and self.phase is Phase.SECURING:  # `on_made` may have cut it off
            TlsHandshake(transport, self._tls, self)

    def connection_secured(self, transport: asyncio.Transport) -> None:
        """See `relay.net.tls_handshake.Owner`."""
        self._tls = None
        self._use(transport)
        self._advance(Event.SECURED)
        super().connection_made(transport)

    def _use(self, transport: Any) -> None:
        self.transport = transport
        self.write = transport.write
        self.pending = transport.get_write_buffer_size

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. The hub must not write to the transport after this."""
        if self._subscriber is not None:
            self._subscriber.mute()
        self._advance(Event.CONNECTION_LOST)
        self._on_lost(self)
        if self._tls is None:  # the library has had the connection
            self._closing_queue.submit(partial(self._finish_loss, exc))

    def _finish_loss(self, exc: Exception | None) -> bool:
        self._detach(Reason.LINK_LOST)
        self._lost(exc)
        return True

    def _lost(self, exc: Exception | None) -> None:
        """Let the library know, which wakes the handler."""
        super().connection_lost(exc)
        if not self.request_rcvd.done():
            self.request_rcvd.set_result(None)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio keeps the transport open for True
        """See `asyncio.Protocol`. Over TLS a transport can't be kept open for a later turn."""
        if self.phase is not Phase.OPEN or self.transport.get_extra_info("sslcontext") is not None:
            super().eof_received()
            return False
        self._closing_queue.submit(self._finish_input)
        return True

    def _finish_input(self) -> bool:
        """Do what is due after the client's last byte. Return False if the connection has ended already."""
        if self.transport.is_closing():
            return False
        super().eof_received()
        self.transport.close()
        return True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. The first bytes wait in the accept queue."""
        if self.phase is Phase.ACCEPTED:
            self._advance(Event.FIRST_BYTES)
            if self._accept_queue.submit(partial(self._read_first, data), priority=True):
                self.transport.pause_reading()  # only now: to pause and resume takes two system calls
                self._reading_paused = True
            return
        if self.phase is Phase.OPEN and data[0] & 0x0F == Opcode.CLOSE:  # or a part of a frame that looks so
            self.transport.pause_reading()
            self._closing_queue.submit(partial(self._read_close, data))
            return
        self._read(data)

    def _read_close(self, data: bytes) -> bool:
        """Read a close frame. Return False if the connection has gone."""
        if self.transport.is_closing():
            return False
        self.transport.resume_reading()
        self._read(data)
        return True

    def _read(self, data: bytes) -> None:
        self._silent_rounds = 0
        if self.request is None:
            if self.phase is Phase.CLOSING:  # the rest of a request that was refused
                return
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(too_large())
                return
            if self._head_bytes == len(data) and (request := usual_request(data)):
                self._skip_head()
                self.process_event(request)
                return
        for start in range(0, len(data), READ_SLICE_BYTES):
            super().data_received(data[start : start + READ_SLICE_BYTES])
            if len(self.recv_messages.frames) > MAX_UNHANDLED_FRAMES:
                self.end(close_for(Reason.FRAMES_TOO_FAST))
            if self.phase not in READABLE:
                return
        if self.phase in LIVE and self.pending() > PAUSE_READING_BYTES:
            self._reading_paused = True
            self.transport.pause_reading()

    def _skip_head(self) -> None:
        """Let the library's parser expect frames: the request was read without it."""
        self.protocol.parser = Protocol.parse(self.protocol)
        next(self.protocol.parser)

    def _read_first(self, first: bytes) -> bool:
        """Read the first bytes when the accept queue lets them through. Return False if the connection has gone."""
        if self.phase is not Phase.QUEUED or self.transport.is_closing():
            return False
        self._advance(Event.READ)
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        self.data_received(first)
        return True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the kernel has taken all bytes."""
        super().resume_writing()
        if self._reading_paused:
            self._reading_paused = False
            if not self.recv_messages.paused:
                self.transport.resume_reading()
        self._drained()
