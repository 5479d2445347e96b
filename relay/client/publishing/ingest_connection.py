"""One WebSocket connection of a publisher: messages out, cumulative acks in, never more than the relay's credit.

A frame is sent at once if no message is unacknowledged. Otherwise it is sent when an ack comes, when 256 messages wait,
or after 5 ms. So single messages have no delay, and many messages share large frames: a large frame costs the kernel,
the event loop and the relay about as much as a small one.
"""

import asyncio
import contextlib
from typing import NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from relay.client.backoff import bounded_ms
from relay.client.connection import Ended
from relay.client.errors import PublishError
from relay.client.publishing.frames import Ack, Problem, Reconnect, Welcome, parse_frame
from relay.client.publishing.last_values import LastValues
from relay.client.publishing.messages import KNOWN_CHANNELS
from relay.client.publishing.send_queue import BURST, QueuedMessage, SendQueue
from relay.client.receipts import Dropped, Receipt, Result
from relay.core.closes import CloseCode
from relay.core.errors import MalformedError
from relay.core.patterns import covers
from relay.core.sequencer import KEYS_A_CHANNEL

LINGER_S = 0.005
"""Longest wait of a message for others: too short to be seen, and longer than a round trip in a data centre."""


IN_FLIGHT = KEYS_A_CHANNEL
"""Most messages without an ack. All may belong to one channel, and the relay remembers as many keys of a channel. With
more it would not recognize the first ones when they are sent again. At 20,000 messages a second this is 50 ms."""


class IngestConnection:
    """A connection after its welcome. The automatic idempotency keys begin with `run_name`.

    Each of the first `alone` messages is sent in a frame of its own, after the ack of the one before it: one of them
    made the relay close the last connection, and the next close shows which.
    """

    def __init__(
        self,
        connection: ClientConnection,
        welcome: Welcome,
        queue: SendQueue,
        last_values: LastValues,
        *,
        run_name: bytes,
        timeout_s: float,
        alone: int = 0,
    ) -> None:
        self._connection = connection
        self._welcome = welcome
        self._queue = queue
        self._last_values = last_values
        self._run_name = run_name
        self._timeout_s = timeout_s
        self._credit = welcome.credit
        self.alone = alone
        """How many of the messages that must be sent alone are unsettled."""
        self._last_id = 0
        self._upto = 0
        self._silent_since = 0.0
        self._refused: dict[int, PublishError] = {}
        self._epochs: dict[str, str] = {}
        self._streams: dict[str, bool] = {}
        self.problem: Problem | None = None
        """The relay's error about the connection itself."""
        self.retry_after_s: float | None = None
        """The wait before a reconnect that the relay named, in seconds."""

    @property
    def has_settled(self) -> bool:
        """Whether any message was settled here."""
        return self._upto > 0

    async def run(self) -> Ended:
        """Send and settle messages until the connection ends."""
        writing = asyncio.get_running_loop().create_task(self._write())
        try:
            return await self._read()
        finally:
            writing.cancel()
            # `await writing` would take a cancellation of the caller for the task's
            await asyncio.wait([writing])
            if not writing.cancelled():
                writing.result()

    # Out

    async def _write(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        limits = self._welcome.limits
        while True:
            await self._ready(loop)
            if not self._queue.sent:
                self._silent_since = loop.time()
            most = max(min(self._room, limits.frame_messages), 1)
            frame = b"\n".join(map(self._line, self._queue.next_batch(most, limits.frame_bytes)))
            with contextlib.suppress(ConnectionClosed):  # the reader reports it
                await self._connection.send(frame, text=True)

    @property
    def _room(self) -> int:
        if self.alone:
            return 0 if self._queue.sent else min(self._credit - self._last_id, 1)
        return min(self._credit - self._last_id, IN_FLIGHT - len(self._queue.sent))

    async def _ready(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until a frame should be sent."""
        queue = self._queue
        while True:
            queue.wake.clear()
            due = None
            if queue.unsent and self._room > 0:
                if not queue.sent or queue.is_hurried or len(queue.unsent) >= BURST:
                    return
                due = queue.unsent_since + LINGER_S
                if due <= loop.time():
                    return
            try:
                async with asyncio.timeout_at(due):
                    await queue.wake.wait()
            except TimeoutError:
                return

    def _line(self, entry: QueuedMessage) -> bytes:
        self._last_id += 1
        message = entry.message
        if not message.is_named and self._is_stream(message.channel):
            return b'{"type":"publish","id":%d,"idempotency_key":"%b-%d",%b}' % (
                self._last_id,
                self._run_name,
                entry.number,
                message.members,
            )
        return b'{"type":"publish","id":%d,%b}' % (self._last_id, message.members)

    def _is_stream(self, channel: str) -> bool:
        known = self._streams.get(channel)
        if known is None:
            if len(self._streams) >= KNOWN_CHANNELS:
                self._streams.clear()
            known = any(covers(pattern, channel) for pattern in self._welcome.streams)
            self._streams[channel] = known
        return known

    # In

    async def _read(self) -> Ended:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    text = await self._connection.recv(decode=False)
            except TimeoutError:
                if self._queue.sent and loop.time() - self._silent_since >= self._timeout_s:
                    return self._abort("no_ack")
                continue
            except ConnectionClosed as error:
                close = error.rcvd
                if close is None:
                    return Ended(code=CloseCode.ABNORMAL, reason="link_lost")
                return Ended(code=close.code, reason=close.reason)
            self._silent_since = loop.time()
            try:
                self._process(text)
            except MalformedError:
                return self._abort("malformed_frame")

    def _abort(self, reason: str) -> Ended:
        self._connection.transport.abort()
        return Ended(code=CloseCode.ABNORMAL, reason=reason)

    def _process(self, text: bytes) -> None:
        frame = parse_frame(text)
        match frame:
            case Ack():
                self._settle(frame)
            case Problem(id=None):
                self.problem = frame
            case Problem(id=int(id)):
                self._refused[id] = PublishError(frame.code, frame.message, retryable=frame.retryable)
            case Reconnect():
                self.retry_after_s = bounded_ms(frame.delay_ms)
            case _:
                return

    def _settle(self, ack: Ack) -> None:
        """Settle the messages up to the ack's id.

        Raises:
            MalformedError: if the relay acknowledges a message that was not sent.
        """
        if not self._upto <= ack.upto <= self._last_id:
            raise MalformedError(f"The ack is for message {ack.upto}, but only {self._last_id} were sent.")
        self._epochs |= ack.epoch
        queue, epochs, refused = self._queue, self._epochs, self._refused
        dropped: dict[int, Dropped] = {}
        dropped |= dict.fromkeys(ack.stale, "stale")
        dropped |= dict.fromkeys(ack.duplicate, "duplicate")
        for id in range(self._upto + 1, ack.upto + 1):
            message = queue.sent[0].message
            result: Result | None = refused.pop(id, None) if refused else None
            if result is None:
                result = Receipt(
                    channel=message.channel,
                    epoch=epochs.get(message.channel, ""),
                    dropped=dropped.get(id),
                )
                if message.is_value and not self._is_stream(message.channel):
                    self._last_values.keep(message)
            queue.settle(result)
        self.alone = max(self.alone - (ack.upto - self._upto), 0)
        self._upto = ack.upto
        self._credit = max(self._credit, ack.credit)
        queue.wake.set()
