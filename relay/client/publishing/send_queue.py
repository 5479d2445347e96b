"""A publisher's messages in their order: those not sent yet, and those sent and not settled.

Messages that were sent and not settled when a connection broke are sent again, before all newer ones: `requeue` puts
them back in front. Messages are settled in the order in which they were sent, so the last one is settled last.

The queue is bounded, and this is the back-pressure: if the relay is slow or away, a publisher waits for room instead of
filling its memory.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Self

from relay.client.errors import PublishError
from relay.client.publishing.messages import EncodedMessage
from relay.client.receipts import Result

MAX_MESSAGES = 4096
"""0.2 s of 20,000 messages a second: several round trips, and four times the relay's first credit."""
MAX_BYTES = 16 << 20
"""256 values of 64 KiB, which is the number of messages in a full frame."""

OVERHEAD_BYTES = 96
"""Bytes around a message's members on a line: braces, type, id of 16 digits, an automatic key, a line break."""

BURST = 256
"""Number of waiting messages that are sent at once, even if others are unacknowledged."""


class HaltedError(PublishError):
    """Publishing stopped before this message: the key was refused, or all attempts to reach the relay failed."""

    @classmethod
    def of(cls, error: PublishError) -> Self:
        """Return the error that stopped publishing, as this type."""
        return cls(
            error.code,
            error.message,
            status=error.status,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )


class QueuedMessage:
    """One message in the queue. `number` is unique for the publisher; `future` gets the result.

    `is_watched`: a caller awaits the result, so an error is not reported by `flush`.
    """

    __slots__ = ("future", "is_watched", "message", "number")

    def __init__(
        self,
        message: EncodedMessage,
        number: int,
        future: "asyncio.Future[Result] | None",
        *,
        is_watched: bool,
    ) -> None:
        self.message = message
        self.number = number
        self.future = future
        self.is_watched = is_watched


class SendQueue:
    """The queue. `filled` is set while messages are unsent, `wake` when it may be time to send them."""

    def __init__(self, *, max_messages: int = MAX_MESSAGES) -> None:
        self._max_messages = max_messages
        self._bytes = 0
        self._numbers = 0
        self._room = asyncio.Event()
        self._room.set()
        self.unsent: deque[QueuedMessage] = deque()
        self.sent: deque[QueuedMessage] = deque()
        self.filled = asyncio.Event()
        self.wake = asyncio.Event()
        self.unsent_since = 0.0
        """A time of the event loop's clock: no unsent message has waited since an earlier one."""
        self.is_hurried = False
        """Whether a caller waits for all messages: then they are sent without the wait for more."""
        self.halts = 0
        """How often all messages were failed by `fail_all`."""
        self.refusal: PublishError | None = None
        """The relay's final refusal, while no attempt is made."""
        self._untold_refusal: PublishError | None = None
        self._failed_with: PublishError | None = None
        self._unreported: PublishError | None = None
        self._unreported_count = 0

    async def put(self, message: EncodedMessage, future: "asyncio.Future[Result] | None" = None) -> None:
        """Add a message at the end, and wait for room.

        `future` gets its `Result`, never an exception. Without it, `take_unreported_error` reports an error.
        """
        is_watched = future is not None
        halts = self.halts
        while not self._room.is_set():
            await self._room.wait()
            if (
                self.halts != halts and self._failed_with is not None
            ):  # the messages in the queue have failed, so this one fails too
                self._end(QueuedMessage(message, 0, future, is_watched=is_watched), self._failed_with)
                return
        self._numbers += 1
        self.unsent.append(QueuedMessage(message, self._numbers, future, is_watched=is_watched))
        self._bytes += len(message.members)
        waiting = len(self.unsent)
        if waiting == 1:
            self.unsent_since = asyncio.get_running_loop().time()
            self.filled.set()
            self.wake.set()
        elif not waiting % BURST:
            self.wake.set()
            await asyncio.sleep(0)  # a caller that never waits would block all other tasks
        if len(self.sent) + len(self.unsent) >= self._max_messages or self._bytes >= MAX_BYTES:
            self._room.clear()

    def put_first(self, messages: Iterable[EncodedMessage]) -> None:
        """Add messages without a caller before all unsent ones."""
        entries = []
        for message in messages:
            self._numbers += 1
            self._bytes += len(message.members)
            entries.append(QueuedMessage(message, self._numbers, None, is_watched=True))
        self.unsent.extendleft(reversed(entries))
        if self.unsent:
            self.filled.set()
            self.wake.set()

    def next_batch(self, max_messages: int, max_bytes: int) -> list[QueuedMessage]:
        """Return the next unsent messages, at least one, and count them as sent."""
        batch: list[QueuedMessage] = []
        size = 0
        while self.unsent and len(batch) < max_messages:
            size += len(self.unsent[0].message.members) + OVERHEAD_BYTES
            if batch and size > max_bytes:
                break
            batch.append(self.unsent.popleft())
        self.sent.extend(batch)
        self.unsent_since = asyncio.get_running_loop().time()
        if not self.unsent:
            self.filled.clear()
            self.is_hurried = False
        return batch

    def settle(self, result: Result) -> None:
        """Give the oldest sent message its result."""
        entry = self.sent.popleft()
        self._bytes -= len(entry.message.members)
        self._end(entry, result)
        if not self._room.is_set() and len(self.sent) + len(self.unsent) < self._max_messages:
            self._room.set()

    def requeue(self) -> None:
        """Count the sent and unsettled messages as unsent again, in their old order."""
        self.unsent.extendleft(reversed(self.sent))
        self.sent.clear()
        if self.unsent:
            self.filled.set()
            self.wake.set()

    def refuse_first(self, error: PublishError) -> None:
        """Give the first unsent message this error, and remove it."""
        self.sent.append(self.unsent.popleft())
        self.settle(error)
        if not self.unsent:
            self.filled.clear()

    def fail_all(self, error: PublishError) -> None:
        """Give all messages the same error."""
        self.requeue()
        entries, self.unsent = list(self.unsent), deque()
        self._bytes = 0
        self.halts += 1
        self._failed_with = error
        self.filled.clear()
        self._room.set()
        for entry in entries:
            self._end(entry, error)

    def refuse_all(self, error: PublishError) -> None:
        """Give all messages the relay's final refusal. It holds until `refusal` is set to None again."""
        self.refusal = error
        if any(not entry.is_watched for entry in (*self.sent, *self.unsent)):
            self._untold_refusal = error
        self.fail_all(error)

    async def settled(self) -> None:
        """Wait until all current messages are settled."""
        if not self.unsent and not self.sent:
            return
        last = self.unsent[-1] if self.unsent else self.sent[-1]
        if last.future is None or last.future.cancelled():
            last.future = asyncio.get_running_loop().create_future()
        self.is_hurried = bool(self.unsent)
        self.wake.set()
        await asyncio.wait([last.future])

    def take_refusal(self) -> PublishError | None:
        """Return the final refusal if it still holds, or if no caller of `send` was told of it; otherwise None."""
        refusal = self.refusal or self._untold_refusal
        self._untold_refusal = None
        return None if refusal is None else HaltedError.of(refusal)

    def take_unreported_error(self) -> PublishError | None:
        """Return the first error, since the last call, of the messages without a watcher; None if there is none."""
        error, self._unreported = self._unreported, None
        count, self._unreported_count = self._unreported_count, 0
        self._untold_refusal = None
        if error is None or count == 1:
            return error
        return PublishError(
            error.code,
            f"{count} messages were not published. The first error: {error.message}",
            status=error.status,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )

    def _end(self, entry: QueuedMessage, result: Result) -> None:
        if entry.future is not None and not entry.future.done():  # done: the caller was cancelled
            entry.future.set_result(result)
        if not entry.is_watched and isinstance(result, PublishError):
            self._unreported_count += 1
            self._unreported = self._unreported or result
