"""One WebSocket connection: the library's, with a sink for the hub and the hooks that bound it.

All frames to the client go through the transport's own `write`, never through the library's `send`, so that
acknowledgements and data keep their order. That is right only while the connection is open: a frame behind the
close frame breaks RFC 6455 §5.5.1, and a transport whose write side is shut raises, which would end the flush that
serves everybody. So the hub's subscriber is taken out in `send_data`, which is where the library writes its close
frame whatever the cause: the client's close, a frame that breaks the protocol, text that is not UTF-8.

What the library leaves open and this class bounds:
- a reader that stops reading: nothing is written to it any more once bytes are pending (the hub), and
  `Heart` aborts it after 30 seconds;
- a client that sends and does not read: the answers to its pings pile up in our memory, so reading from it
  pauses while more than 64 KiB wait to be sent;
- thousands of tiny frames in one read: they are parsed a few hundred at a time, and no further once the client is
  being closed for them; without that, one read of 256 KiB of pings held the loop for half a second;
- pings from a client without a token, which nobody else counts;
- a close that is never answered, and a client that closes and then keeps its TCP connection: the transport is
  aborted one second later. The library does that only for those who call its own `close`.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN, Event
from websockets.server import ServerProtocol

from relay.core.closes import Close, close_for
from relay.core.errors import Reason
from relay.core.hub import Hub
from relay.core.protocol import ClientProtocol
from relay.core.subscribers import Subscriber
from relay.net.admission import AdmissionQueue

PAUSE_READING_BYTES = 65_536
"""Bytes waiting to be sent at which nothing more is read from the client."""
READ_SLICE_BYTES = 4096
"""Bytes parsed at once: at most some 680 frames, about 10 ms."""
MAX_WAITING_FRAMES = 256
"""Frames read and not handled yet. The rate limit closes long before; one message in more fragments has no excuse."""
MAX_EARLY_CONTROL_FRAMES = 20
"""Pings and pongs before the token: browsers send none."""
MAX_HEAD_BYTES = 32_768
"""Bytes of a handshake, as on the HTTP listeners. The library would keep 128 headers of 8 KB each."""
CLOSE_TIMEOUT_S = 1.0
"""Seconds that a client has to answer a close. A browser answers in one round trip."""

_FORGOTTEN = Request(path="", headers=Headers())
"""What stands for the request when it is over: without one, the library would take the next frame for it."""


class StreamConnection(ServerConnection):
    """The library's connection with the relay's hooks. `on_made` and `on_lost` keep the counts of addresses.

    `accept_queue` is where its first bytes wait until they are read.
    """

    # with ours beside the library's attributes there would be more than the 30 whose names instances can share
    __slots__ = (
        "_accept_queue",
        "_early_control_frames",
        "_handled",
        "_head_bytes",
        "_hub",
        "_on_lost",
        "_on_made",
        "_peer",
        "_reading_paused",
        "_subscriber",
        "admission",
        "client",
        "ended",
        "opened_at",
        "pending",
        "silent_rounds",
        "stalled_beats",
        "stalled_bytes",
        "write",
    )

    write: Callable[[bytes], None]
    """Write whole frames. Only called while the connection is open; see `attach`."""
    pending: Callable[[], int]
    """Return the bytes that the kernel has not taken yet."""

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        on_made: "Callable[[StreamConnection], None]",
        on_lost: "Callable[[StreamConnection], None]",
        accept_queue: AdmissionQueue,
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
        self._accept_queue: AdmissionQueue | None = accept_queue
        self._hub: Hub | None = None
        self._subscriber: Subscriber | None = None
        self.client: ClientProtocol | None = None
        self._reading_paused = False
        self._early_control_frames = 0
        self._head_bytes = 0
        self._handled = False
        self._peer: Any = None

    @property
    def remote_address(self) -> Any:
        """Return the peer's address, also of a client that is gone: the transport can't tell it any more then."""
        return self._peer

    @property
    def messages_out(self) -> int:
        """Data frames that were sent so far; 0 before the connection is attached and when it is over."""
        return 0 if self._subscriber is None else self._subscriber.messages

    # the hub's sink: `write` and `pending` are the transport's own, because they are called for each delivery

    def overflow(self) -> None:
        """End a connection that was too slow for a `stream` channel."""
        self.end(close_for(Reason.SLOW_CONSUMER))

    def forget_handshake(self) -> None:
        """Let go of what only the handshake needed: 3.5 KB, among them the token."""
        self.request, self.response = _FORGOTTEN, None
        vars(self.protocol).pop("process_request", None)  # see `relay.stream.gate`

    def attach(self, hub: Hub, subscriber: Subscriber, client: ClientProtocol) -> None:
        """Tie the connection to its place in the hub, until it closes."""
        self._hub, self._subscriber, self.client = hub, subscriber, client
        if self.protocol.state is not OPEN:  # it was closed while its token was looked up
            self._let_go(Reason.CLIENT_CLOSED)

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

    def _let_go(self, reason: Reason) -> None:
        """Leave the hub because the connection is closing, and see to it that it does."""
        self.detach(reason)
        self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def drop(self, close: Close) -> None:
        """End the TCP connection at once: the client does not read, or is not there."""
        if self.protocol.state is OPEN:
            self.ended = close
        self.detach(close.reason)
        self.transport.abort()

    def send_data(self) -> None:
        """Write what the library has to say. It calls this at each change of state."""
        if self.client is not None and self.protocol.state is not OPEN:
            self._let_go(Reason.CLIENT_CLOSED)
        if self._is_unanswered:
            if self.protocol.data_to_send():  # to a frame that came too early: see `process_event`
                self.transport.abort()
            return
        super().send_data()

    @property
    def _is_unanswered(self) -> bool:
        """Whether the handshake has no answer yet, ours or the library's."""
        return (
            self.protocol.state is CONNECTING
            and self.response is None
            and self.protocol.handshake_exc is None
        )

    # asyncio's callbacks

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")
        self.write = transport.write
        self.pending = transport.get_write_buffer_size
        self._on_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.detach(Reason.LINK_LOST)
        self._on_lost(self)
        super().connection_lost(exc)
        if self._handled:
            self._let_die()

    async def handshake(self, *arguments: Any) -> None:
        """See `ServerConnection.handshake`, which is the first that the connection's task does."""
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(self._handler_ended)
        await super().handshake(*arguments)

    def _handler_ended(self, _task: "asyncio.Task[None]") -> None:
        self._handled = True
        if self.connection_lost_waiter.done():
            self._let_die()

    def _let_die(self) -> None:
        """See to it that counting references frees this connection, which nobody will ask for anything any more.

        It, the library's state machine and the transport refer to each other. Freeing them would be left to the
        cycle collector, which for that looks at each object of every open connection; see `relay.server.gc_tuning`. Not
        at once: a stopping server's own calls of `close` may be about to hear that it is closed.
        """
        self.loop.call_later(CLOSE_TIMEOUT_S, self._break_cycles)

    def _break_cycles(self) -> None:
        vars(self.protocol).clear()
        vars(self).clear()
        del self.write, self.pending

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. The first bytes wait at the accept queue."""
        if (accept_queue := self._accept_queue) is not None:
            self._accept_queue = None
            self.transport.pause_reading()
            accept_queue.submit(partial(self._begin, data), priority=True)
            return
        self.silent_rounds = 0
        if self.request is None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
                return
        for start in range(0, len(data), READ_SLICE_BYTES):
            super().data_received(data[start : start + READ_SLICE_BYTES])
            if len(self.recv_messages.frames) > MAX_WAITING_FRAMES:
                self.end(close_for(Reason.FRAMES_TOO_FAST))
            if self.ended is not None or self.transport.is_closing():
                return
        if self.protocol.state is OPEN and self.pending() > PAUSE_READING_BYTES:
            self._reading_paused = True
            self.transport.pause_reading()

    def _begin(self, first: bytes) -> bool:
        """Go on from the accept queue. Tells whether the connection is still there."""
        if self.transport.is_closing():
            return False
        self.transport.resume_reading()
        self.data_received(first)
        return True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the transport holds nothing any more."""
        super().resume_writing()
        self.stalled_beats = 0  # all was taken, however much waits again by the next look
        if self._reading_paused:
            self._reading_paused = False
            if not self.recv_messages.paused:
                self.transport.resume_reading()
        if self._hub is not None and self._subscriber is not None:
            self._hub.drained(self._subscriber)

    def process_event(self, event: Event) -> None:
        """Count pings and pongs like messages: answering one costs as much."""
        opcode = event.opcode if isinstance(event, Frame) else None
        if self._is_unanswered and opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE):
            self.transport.abort()  # clients wait (RFC 6455 §4.1); this would be answered before the handshake
            return
        super().process_event(event)
        if opcode not in (Opcode.PING, Opcode.PONG):
            return
        if self.client is not None:
            # an answer to our own ping is one in 20 seconds, and the bucket has room for it
            close = self.client.control_frame(time.time())
            if close is not None:
                self.end(close)
        elif self.protocol.state is OPEN:
            self._early_control_frames += 1
            if self._early_control_frames > MAX_EARLY_CONTROL_FRAMES:
                self.drop(close_for(Reason.FRAMES_TOO_FAST))
