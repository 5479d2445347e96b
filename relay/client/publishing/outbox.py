"""Messages on their way, in their order: those not sent yet, and those sent and not settled.

What was sent but not settled when a connection broke is to be sent again, before anything newer: `again` puts it
back in front. Messages are settled in the order in which they were sent, so the last one's end is the end of all.

The outbox is bounded, and that is the back-pressure: a publisher whose relay is slow, or away, waits for room instead
of filling its memory.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Self

from relay.client.errors import PublishError
from relay.client.publishing.drafts import Draft
from relay.client.receipts import Result

MAX_MESSAGES = 4096
"""At 20,000 messages a second what is made in 0.2 s: several round trips, and four times the relay's first credit."""
MAX_BYTES = 16 << 20
"""Values of 64 KiB fill it with 256 messages, which is a whole frame's number."""

OVERHEAD_BYTES = 96
"""What stands around a message's members on a line: braces, type, id of 16 digits, an automatic key, a line break."""

BURST = 256
"""Messages that are enough for a frame of their own, whatever else is on its way."""


class HaltedError(PublishError):
    """Publishing stopped before this message: the key was refused, or the relay not reached in all attempts."""

    @classmethod
    def of(cls, error: PublishError) -> Self:
        """Return the same error as the one that stopped everything."""
        return cls(
            error.code,
            error.message,
            status=error.status,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )


class Entry:
    """One message on its way. `number` is its own for the publisher's life; `future` gets its result."""

    __slots__ = ("draft", "future", "is_watched", "number")

    def __init__(
        self, draft: Draft, number: int, future: "asyncio.Future[Result] | None", *, is_watched: bool
    ) -> None:
        self.draft = draft
        self.number = number
        self.future = future
        self.is_watched = is_watched


class Outbox:
    """Messages in order. `filled` is set while some wait to be sent, `wake` when there may be reason to send them."""

    def __init__(self, *, max_messages: int = MAX_MESSAGES) -> None:
        self._max_messages = max_messages
        self._bytes = 0
        self._numbers = 0
        self._room = asyncio.Event()
        self._room.set()
        self.unsent: deque[Entry] = deque()
        self.sent: deque[Entry] = deque()
        self.filled = asyncio.Event()
        self.wake = asyncio.Event()
        self.unsent_since = 0.0
        """Since when, on the event loop's clock, the oldest unsent message has waited at most."""
        self.is_hurried = False
        """Somebody waits for everything to be out: don't linger for more."""
        self.halts = 0
        """How often everything was given up."""
        self._given_up: PublishError | None = None
        self._unseen: PublishError | None = None
        self._unseen_count = 0

    async def put(self, draft: Draft, *, is_watched: bool) -> "asyncio.Future[Result]":
        """Add a message behind all others, waiting for room; its future gets a `Result`, and never an exception."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        halts = self.halts
        while not self._room.is_set():
            await self._room.wait()
            if (
                self.halts != halts and self._given_up is not None
            ):  # it waited like those that were in already
                self._end(Entry(draft, 0, future, is_watched=is_watched), self._given_up)
                return future
        self._numbers += 1
        self.unsent.append(Entry(draft, self._numbers, future, is_watched=is_watched))
        self._bytes += len(draft.members)
        waiting = len(self.unsent)
        if waiting == 1:
            self.unsent_since = loop.time()
            self.filled.set()
            self.wake.set()
        elif not waiting % BURST:
            self.wake.set()
            await asyncio.sleep(0)  # a caller that never waits would keep everybody else from running
        if len(self.sent) + len(self.unsent) >= self._max_messages or self._bytes >= MAX_BYTES:
            self._room.clear()
        return future

    def put_first(self, drafts: Iterable[Draft]) -> None:
        """Add messages that nobody waits for, before all that were not sent yet."""
        entries = []
        for draft in drafts:
            self._numbers += 1
            self._bytes += len(draft.members)
            entries.append(Entry(draft, self._numbers, None, is_watched=True))
        self.unsent.extendleft(reversed(entries))
        if self.unsent:
            self.filled.set()
            self.wake.set()

    def take(self, max_messages: int, max_bytes: int) -> list[Entry]:
        """Return the next messages to be sent, one at least; they are sent from then on."""
        batch: list[Entry] = []
        size = 0
        while self.unsent and len(batch) < max_messages:
            size += len(self.unsent[0].draft.members) + OVERHEAD_BYTES
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
        """End the oldest message that was sent."""
        entry = self.sent.popleft()
        self._bytes -= len(entry.draft.members)
        self._end(entry, result)
        if not self._room.is_set() and len(self.sent) + len(self.unsent) < self._max_messages:
            self._room.set()

    def again(self) -> None:
        """Take what was sent and not settled for unsent, in its old place."""
        self.unsent.extendleft(reversed(self.sent))
        self.sent.clear()
        if self.unsent:
            self.filled.set()
            self.wake.set()

    def give_up(self, error: PublishError) -> None:
        """End all messages with the same error."""
        self.again()
        entries, self.unsent = list(self.unsent), deque()
        self._bytes = 0
        self.halts += 1
        self._given_up = error
        self.filled.clear()
        self._room.set()
        for entry in entries:
            self._end(entry, error)

    async def settled(self) -> None:
        """Wait until all messages that are in now are settled."""
        if not self.unsent and not self.sent:
            return
        last = self.unsent[-1] if self.unsent else self.sent[-1]
        if last.future is None or last.future.cancelled():
            last.future = asyncio.get_running_loop().create_future()
        self.is_hurried = bool(self.unsent)
        self.wake.set()
        await asyncio.wait([last.future])

    def take_unseen(self) -> PublishError | None:
        """Return the first error since the last call of messages that nobody watched, None if there is none."""
        error, self._unseen = self._unseen, None
        count, self._unseen_count = self._unseen_count, 0
        if error is None or count == 1:
            return error
        return PublishError(
            error.code,
            f"{count} messages were not published; the first: {error.message}",
            status=error.status,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )

    def _end(self, entry: Entry, result: Result) -> None:
        if entry.future is not None and not entry.future.done():  # done: whoever waited was cancelled
            entry.future.set_result(result)
        if not entry.is_watched and isinstance(result, PublishError):
            self._unseen_count += 1
            self._unseen = self._unseen or result
