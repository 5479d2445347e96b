"""Publishing, for backends: `async with Publisher(url, key) as publisher: await publisher.publish(channel, data)`.

All messages go through one outbox in the order in which they were given, over a WebSocket or with HTTP requests. What
`publish` and `publish_many` returned for was settled by the relay; `send` returns earlier, when there is room, and
`flush` waits for all. A caller who is faster than the relay waits: that is the back-pressure.

What is guaranteed: nothing that was accepted here is dropped without a word. It is settled, or its end is told as an
error; and whatever is not settled when a connection breaks is sent again in its order. Whether the relay then knows a
repetition as one, `relay.client.publishing.streaming` says.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from relay.client.answers import check_base_url
from relay.client.backoff import Backoff
from relay.client.errors import PublishError
from relay.client.publishing.drafts import Draft, Message, More, encode_draft, sign_of_life
from relay.client.publishing.outbox import MAX_MESSAGES, HaltedError, Outbox
from relay.client.publishing.posting import Posting
from relay.client.publishing.streaming import Streaming
from relay.client.receipts import Receipt, Result
from relay.core.errors import ConfigurationError

ATTEMPTS = 10
"""Failures in a row with full jitter up to 20 s: half a minute to a minute, in which a deployed relay is back."""

_KEY = re.compile(r"[A-Za-z0-9_-]+\.[\x21-\x7e]+", re.ASCII)


class BatchError(PublishError):
    """Publishing stopped in the middle of `publish_many`; `done` are the results of the messages before."""

    def __init__(self, cause: PublishError, done: list[Result]) -> None:
        super().__init__(
            cause.code,
            cause.message,
            status=cause.status,
            retryable=cause.retryable,
            retry_after_s=cause.retry_after_s,
        )
        self.done = done


class Publisher:
    """One publisher's connection to a relay, to be used inside `async with`.

    Args:
        url: the relay's internal address, like `http://127.0.0.1:8002`, whatever the transport.
        key: the publisher key, `name.secret`.
        transport: "websocket" for one connection with batches and cumulative acks; "http" for requests, one at a time,
            which tell every message's `seq` and say no last values again.
        attempts: how often in a row the relay is tried without success, before everything that waits ends with an
            error. Publishing afterwards starts anew.
        timeout_s: how long a handshake, an answer or an ack may take, in seconds.
        window: how many messages may be on their way; further callers wait.
        backoff: makes the waits between attempts.

    Messages of one task stay in order; those of several tasks are as their calls come. A call that is cancelled does
    not take its message back.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        transport: Literal["websocket", "http"] = "websocket",
        attempts: int = ATTEMPTS,
        timeout_s: float = 10.0,
        window: int = MAX_MESSAGES,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._url = check_base_url(url, ("http", "https"))
        if not _KEY.fullmatch(key):
            raise ConfigurationError(
                "The publisher key is not of the form name.secret; `relay keys publisher NAME` makes one."
            )
        if transport not in {"websocket", "http"}:
            raise ConfigurationError(f'The transport is "websocket" or "http", not {transport!r}.')
        self._outbox = Outbox(max_messages=max(1, window))
        way = Streaming if transport == "websocket" else Posting
        self._way = way(
            self._url, key, self._outbox, attempts=max(1, attempts), timeout_s=timeout_s, backoff=backoff
        )
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Publisher({self._url!r})"

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._running()
        try:
            if error is None:
                await self.flush()
        finally:
            self._task = None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._outbox.give_up(HaltedError("closed", "The publisher was closed before this was sent."))

    async def publish(self, channel: str, data: Any, **more: Unpack[More]) -> Receipt:
        """Publish one value; returns when the relay has stored it and handed it to the fan-out, or dropped it.

        Args:
            channel: an exact channel, like `prices.BTC-USD`.
            data: any object that JSON has, or `bytes` or `str` of JSON, which are sent verbatim.
            more: `version`, `version_epoch`, `idempotency_key` and `source_ts`, as in `Message`.

        Raises:
            PublishError: if it was refused, or every attempt failed (`retryable` is true then).
        """
        return await self._settled(encode_draft(Message(channel=channel, data=data, **more)))

    async def alive(self, channel: str) -> Receipt:
        """Say that a channel's value is unchanged and still true, so that it is not called stale.

        Raises:
            PublishError: as `publish`.
        """
        return await self._settled(sign_of_life(channel))

    async def send(self, channel: str, data: Any, **more: Unpack[More]) -> None:
        """Give one value on its way; returns when there is room for it, long before the relay has it.

        This is the fast way, for thousands of messages a second. What becomes of them `flush` tells, and leaving the
        `async with` block, which flushes. Arguments are those of `publish`.

        Raises:
            PublishError: if it can't be sent as it is.
        """
        await self._put(encode_draft(Message(channel=channel, data=data, **more)), is_watched=False)

    async def publish_many(self, messages: Iterable[Message | tuple[str, Any]]) -> list[Result]:
        """Publish many values without waiting for each, and return one result each, in their order.

        An entry of the result is a `PublishError` where that one value was refused; the others are published
        all the same. Refused values are not sent again by themselves, because behind newer values of their
        channel they would bring an old price back.

        Raises:
            BatchError: if the key was refused, or all attempts failed. The error's `done` holds the results so far;
                of what comes behind them nothing is known to be published.
        """
        halts = self._outbox.halts
        waiting: list[asyncio.Future[Result] | PublishError] = []
        for message in messages:
            try:
                item = encode_draft(_message(message))
            except PublishError as error:
                waiting.append(error)
                continue
            waiting.append(await self._put(item, is_watched=True))
            if self._outbox.halts != halts:
                break
        results: list[Result] = []
        for one in waiting:
            result = one if isinstance(one, PublishError) else await one
            if isinstance(result, HaltedError):
                raise BatchError(result, results)
            results.append(result)
        return results

    async def flush(self) -> None:
        """Wait until everything that was given so far is settled.

        Raises:
            PublishError: if anything given to `send` since the last flush was refused, or could not be delivered: the
                first such error, with their number in its sentence.
        """
        self._running()
        await self._outbox.settled()
        if (error := self._outbox.take_unseen()) is not None:
            raise error

    async def _settled(self, item: Draft) -> Receipt:
        result = await (await self._put(item, is_watched=True))
        if isinstance(result, PublishError):
            raise result
        return result

    async def _put(self, item: Draft, *, is_watched: bool) -> "asyncio.Future[Result]":
        self._running()
        return await self._outbox.put(item, is_watched=is_watched)

    def _running(self) -> "asyncio.Task[None]":
        if self._task is None:
            raise RuntimeError("Use the publisher inside `async with Publisher(url, key) as publisher:`.")
        if self._task.done():
            self._task.result()  # raises what ended it
        return self._task

    async def _run(self) -> None:
        try:
            await self._way.run()
        except Exception as error:
            # nobody may wait for ever for a task that has failed
            self._outbox.give_up(HaltedError("internal_error", f"Publishing failed: {error!r}."))
            raise


def _message(given: Message | tuple[str, Any]) -> Message:
    return given if isinstance(given, Message) else Message(channel=given[0], data=given[1])
