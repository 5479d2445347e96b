"""Publishing, for backends: `async with Publisher(url, key) as publisher: await publisher.publish(channel, data)`.

All messages go through one queue in the order of the calls, over a WebSocket or with HTTP requests. `publish` and
`publish_many` return when the relay has settled their messages. `send` returns earlier, when there is room in the
queue, and `flush` waits for all. A caller that is faster than the relay waits: this is the back-pressure.

The guarantee: no accepted message is lost without an error. It is settled, or an error is raised for it. Messages that
are unsettled when a connection breaks are sent again in their order; `relay.client.publishing.websocket_transport`
explains when the relay recognizes such a repetition.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from relay.client.backoff import Backoff
from relay.client.errors import PublishError
from relay.client.publishing.http_transport import HttpTransport
from relay.client.publishing.messages import (
    EncodedMessage,
    Message,
    MessageOptions,
    encode_alive,
    encode_message,
    encode_value,
)
from relay.client.publishing.send_queue import MAX_MESSAGES, HaltedError, SendQueue
from relay.client.publishing.transport_options import TransportOptions
from relay.client.publishing.websocket_transport import WebSocketTransport
from relay.client.receipts import Receipt, Result
from relay.client.responses import check_base_url
from relay.core.errors import ConfigurationError
from relay.core.log_limit import LogLimit

ATTEMPTS = 10
"""Failures in a row. With full jitter up to 20 s they take half a minute to a minute, enough for a deployment."""

_log = logging.getLogger("relay.client")

_KEY = re.compile(r"[A-Za-z0-9_-]+\.[\x21-\x7e]+", re.ASCII)


class BatchError(PublishError):
    """Publishing stopped in the middle of `publish_many`. `done` has the results of the messages before the stop."""

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
    """One publisher's connection to a relay. Use it inside `async with`.

    Args:
        url: the relay's internal address, like `http://127.0.0.1:8002`, for both transports.
        key: the publisher key, `name.secret`.
        transport: "websocket" for one connection with batches and cumulative acks; "http" for one request after the
            other. HTTP returns every message's `seq`, and does not send last values again after a restart.
        attempts: failed attempts in a row after which all waiting messages end with an error. A later call starts
            again with the first attempt.
        timeout_s: how long a handshake, an answer or an ack may take, in seconds.
        window: most unsettled messages; further calls wait.
        backoff: makes the waits between attempts.
        on_reconnect: is called when there is no connection, with the reason and the seconds until the next attempt.
            A warning in the log of `relay.client` says the same, at most once a minute for each reason.

    Messages of one task stay in order. Messages of several tasks are in the order of the calls. A cancelled call does
    not withdraw its message.
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
        on_reconnect: Callable[[PublishError, float], None] | None = None,
    ) -> None:
        self._url = check_base_url(url, ("http", "https"))
        if not _KEY.fullmatch(key):
            raise ConfigurationError(
                "The publisher key does not have the form name.secret; `relay keys publisher NAME` makes one."
            )
        if transport not in {"websocket", "http"}:
            raise ConfigurationError(f'transport must be "websocket" or "http", not {transport!r}.')
        self._queue = SendQueue(max_messages=max(1, window))
        way = WebSocketTransport if transport == "websocket" else HttpTransport
        self._transport = way(
            TransportOptions(
                url=self._url,
                key=key,
                queue=self._queue,
                attempts=max(1, attempts),
                timeout_s=timeout_s,
                backoff=backoff,
                report=self._report,
            )
        )
        self._on_reconnect = on_reconnect
        self._log_limit = LogLimit()
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
            try:
                # `await task` would take a cancellation of the caller for the task's
                await asyncio.wait([task])
            finally:
                self._queue.fail_all(HaltedError("closed", "The publisher was closed before this was sent."))
            if not task.cancelled():
                task.result()

    async def publish(self, channel: str, data: Any, **more: Unpack[MessageOptions]) -> Receipt:
        """Publish one value. Returns when the relay has stored it and handed it to the fan-out, or has dropped it.

        Args:
            channel: an exact channel, like `prices.BTC-USD`.
            data: any object that JSON can represent; or JSON as `bytes` or `str`, which is sent verbatim.
            more: `version`, `version_epoch`, `idempotency_key` and `source_ts`, as in `Message`.

        Raises:
            PublishError: if it was refused, or if every attempt failed (then `retryable` is true).
        """
        return await self._settled(encode_value(channel, data, **more))

    async def alive(self, channel: str) -> Receipt:
        """Report that a channel's value is unchanged and still valid, so that it does not become stale.

        Raises:
            PublishError: as `publish`.
        """
        return await self._settled(encode_alive(channel))

    async def send(self, channel: str, data: Any, **more: Unpack[MessageOptions]) -> None:
        """Queue one value. Returns when the queue has room for it, long before the relay has it.

        This is the fast way, for thousands of messages a second. `flush` reports errors, and so does the end of the
        `async with` block, which flushes. The arguments are those of `publish`.

        Raises:
            PublishError: if it can't be encoded; or if the relay finally refused earlier messages, for instance
                because the key is wrong. Then this one was not queued.
        """
        if (refusal := self._queue.take_refusal()) is not None:
            await asyncio.sleep(0)  # a caller that tries again at once must not stop the event loop
            raise refusal
        item = encode_value(channel, data, **more)
        self._running()
        await self._queue.put(item)

    async def publish_many(self, messages: Iterable[Message | tuple[str, Any]]) -> list[Result]:
        """Publish many values without waiting for each; returns one result for each, in their order.

        The result of a refused value is a `PublishError`; the other values are published nevertheless. Refused values
        are not sent again, because after newer values of their channel they would bring an old price back.

        Raises:
            BatchError: if the key was refused, or all attempts failed. Its `done` has the results so far; it is unknown
                whether later messages were published.
        """
        halts = self._queue.halts
        waiting: list[asyncio.Future[Result] | PublishError] = []
        for message in messages:
            try:
                item = encode_message(_message(message))
            except PublishError as error:
                waiting.append(error)
                continue
            waiting.append(await self._put(item))
            if self._queue.halts != halts:
                break
        results: list[Result] = []
        for one in waiting:
            result = one if isinstance(one, PublishError) else await one
            if isinstance(result, HaltedError):
                raise BatchError(result, results)
            results.append(result)
        return results

    async def flush(self) -> None:
        """Wait until all messages so far are settled.

        Raises:
            PublishError: if a message given to `send` since the last flush was refused or not delivered. It is the
                first such error, and its text has their number.
        """
        self._running()
        await self._queue.settled()
        if (error := self._queue.take_unreported_error()) is not None:
            raise error

    async def _settled(self, item: EncodedMessage) -> Receipt:
        result = await (await self._put(item))
        if isinstance(result, PublishError):
            raise result
        return result

    async def _put(self, item: EncodedMessage) -> "asyncio.Future[Result]":
        self._running()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        await self._queue.put(item, future)
        return future

    def _running(self) -> "asyncio.Task[None]":
        if self._task is None:
            raise RuntimeError(
                "The publisher is not open: use it inside `async with Publisher(url, key) as publisher:`."
            )
        if self._task.done():
            self._task.result()  # raises what ended it
        return self._task

    def _report(self, error: PublishError, wait_s: float) -> None:
        left_out = self._log_limit.admit((error.code, error.status), asyncio.get_running_loop().time())
        if left_out is not None:
            _log.warning("%s The next attempt follows in %.1f s.", error.message, wait_s)
        if self._on_reconnect is not None:
            try:
                self._on_reconnect(error, wait_s)
            except Exception:  # noqa: BLE001  # the caller's; publishing must go on
                _log.exception("on_reconnect failed.")

    async def _run(self) -> None:
        try:
            await self._transport.run()
        except Exception as error:
            # callers that wait for this task must not wait without end
            self._queue.fail_all(HaltedError("internal_error", f"Publishing failed: {error!r}."))
            raise


def _message(given: Message | tuple[str, Any]) -> Message:
    return given if isinstance(given, Message) else Message(channel=given[0], data=given[1])
