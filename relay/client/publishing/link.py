"""One connection of a publisher: frames of messages out, cumulative acks in, never more than the relay's credit.

When a frame leaves: at once if nothing is on its way, so that a lone message is not kept waiting; otherwise when an ack
comes, when there are 256 messages, or after 5 ms. So a slow trickle has no delay, and a flood goes out in large frames,
each of which costs the kernel, the event loop and the relay about as much as a small one.
"""

import asyncio
import contextlib
from typing import NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from relay.client.errors import PublishError
from relay.client.link import Ended
from relay.client.publishing.frames import Ack, Problem, Reconnect, Welcome, parse_frame
from relay.client.publishing.last_values import LastValues
from relay.client.publishing.outbox import BURST, Entry, Outbox
from relay.client.receipts import Dropped, Receipt, Result
from relay.core.closes import CloseCode
from relay.core.errors import MalformedError
from relay.core.patterns import covers
from relay.core.sequencer import KEYS_A_CHANNEL

LINGER_S = 0.005
"""How long a message waits for company at most: below what anybody sees, above a round trip in one data centre."""


IN_FLIGHT = KEYS_A_CHANNEL
"""Messages without an ack, of one channel at worst. The relay remembers as many keys of a channel: of more, sent again
after a break, it would not know the first. At 20,000 a second that is 50 ms."""


class Link:
    """A connection that was welcome. `run_name` begins the automatic idempotency keys."""

    def __init__(
        self,
        connection: ClientConnection,
        welcome: Welcome,
        outbox: Outbox,
        last_values: LastValues,
        *,
        run_name: bytes,
        timeout_s: float,
    ) -> None:
        self._connection = connection
        self._welcome = welcome
        self._outbox = outbox
        self._last_values = last_values
        self._run_name = run_name
        self._timeout_s = timeout_s
        self._credit = welcome.credit
        self._last_id = 0
        self._upto = 0
        self._silent_since = 0.0
        self._refused: dict[int, PublishError] = {}
        self._epochs: dict[str, str] = {}
        self._streams: dict[str, bool] = {}
        self.problem: Problem | None = None
        """What the relay said about the connection itself."""
        self.told_s: float | None = None
        """When to come back, by the relay's own wish."""

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
            with contextlib.suppress(asyncio.CancelledError):
                await writing

    # Out

    async def _write(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        limits = self._welcome.limits
        while True:
            await self._ready(loop)
            if not self._outbox.sent:
                self._silent_since = loop.time()
            most = min(self._room, limits.frame_messages)
            frame = b"\n".join(map(self._line, self._outbox.take(most, limits.frame_bytes)))
            with contextlib.suppress(ConnectionClosed):  # the reader tells
                await self._connection.send(frame, text=True)

    @property
    def _room(self) -> int:
        return min(self._credit - self._last_id, IN_FLIGHT - len(self._outbox.sent))

    async def _ready(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until there is a frame's worth to be sent, and leave to send it."""
        outbox = self._outbox
        while True:
            outbox.wake.clear()
            due = None
            if outbox.unsent and self._room > 0:
                if not outbox.sent or outbox.is_hurried or len(outbox.unsent) >= BURST:
                    return
                due = outbox.unsent_since + LINGER_S
                if due <= loop.time():
                    return
            try:
                async with asyncio.timeout_at(due):
                    await outbox.wake.wait()
            except TimeoutError:
                return

    def _line(self, entry: Entry) -> bytes:
        self._last_id += 1
        draft = entry.draft
        if not draft.is_named and self._is_stream(draft.channel):
            return b'{"type":"publish","id":%d,"idempotency_key":"%b-%d",%b}' % (
                self._last_id,
                self._run_name,
                entry.number,
                draft.members,
            )
        return b'{"type":"publish","id":%d,%b}' % (self._last_id, draft.members)

    def _is_stream(self, channel: str) -> bool:
        known = self._streams.get(channel)
        if known is None:
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
                if self._outbox.sent and loop.time() - self._silent_since >= self._timeout_s:
                    return self._abort("no_ack")
                continue
            except ConnectionClosed as error:
                close = error.rcvd
                if close is None:
                    return Ended(code=CloseCode.ABNORMAL, reason="link_lost")
                return Ended(code=close.code, reason=close.reason)
            self._silent_since = loop.time()
            try:
                self._heard(text)
            except MalformedError:
                return self._abort("malformed_frame")

    def _abort(self, reason: str) -> Ended:
        self._connection.transport.abort()
        return Ended(code=CloseCode.ABNORMAL, reason=reason)

    def _heard(self, text: bytes) -> None:
        frame = parse_frame(text)
        match frame:
            case Ack():
                self._settle(frame)
            case Problem(id=None):
                self.problem = frame
            case Problem(id=int(id)):
                self._refused[id] = PublishError(frame.code, frame.message, retryable=frame.retryable)
            case Reconnect():
                self.told_s = frame.delay_ms / 1000
            case _:
                return

    def _settle(self, ack: Ack) -> None:
        """Tell what became of the messages up to the ack's.

        Raises:
            MalformedError: if the relay acknowledges what was not sent.
        """
        if not self._upto <= ack.upto <= self._last_id:
            raise MalformedError(f"An ack up to {ack.upto}, of {self._last_id} messages.")
        self._epochs |= ack.epoch
        outbox, epochs, refused = self._outbox, self._epochs, self._refused
        dropped: dict[int, Dropped] = {}
        dropped |= dict.fromkeys(ack.stale, "stale")
        dropped |= dict.fromkeys(ack.duplicate, "duplicate")
        for id in range(self._upto + 1, ack.upto + 1):
            draft = outbox.sent[0].draft
            result: Result | None = refused.pop(id, None) if refused else None
            if result is None:
                result = Receipt(
                    channel=draft.channel,
                    epoch=epochs.get(draft.channel, ""),
                    dropped=dropped.get(id),
                )
                if draft.is_value and not self._is_stream(draft.channel):
                    self._last_values.keep(draft)
            outbox.settle(result)
        self._upto = ack.upto
        self._credit = max(self._credit, ack.credit)
        outbox.wake.set()
