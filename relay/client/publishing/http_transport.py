"""Publishing with HTTP requests, one after the other. Messages that arrive during a request go into the next one.

For publishers with few messages, and for networks that block WebSockets. A request that broke off may have been
accepted, so another attempt can publish a value twice, unless it has a version or an idempotency key.
"""

import asyncio
from typing import Any, NoReturn

import httpx

from relay.client.errors import PublishError
from relay.client.publishing.send_queue import HaltedError, QueuedMessage
from relay.client.publishing.transport_options import TransportOptions
from relay.client.receipts import Receipt, Result
from relay.client.responses import read_json, read_problem
from relay.net.http_client import async_client

MAX_BATCH_MESSAGES = 1000
MAX_BATCH_BYTES = 1 << 20
"""The relay's bounds for one request: 1000 messages, 1 MiB."""

_OF_THE_MESSAGE = frozenset({400, 403, 413})
"""Statuses that refuse one message. The next message may be accepted."""
_OF_A_MESSAGE = frozenset({400, 413})
"""Statuses that refuse a whole request because of a message in it. Its messages are sent again, each in a request."""


class HttpTransport:
    """Sends a queue's messages with requests."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self._queue = options.queue
        self._refused = options.backoff()
        """The waits after final refusals. They grow until a request succeeds."""
        self._alone = 0
        """How many of the next messages are sent in a request of their own, because one of them may be faulty."""

    async def run(self) -> NoReturn:
        """Send the queue's messages, until cancelled."""
        headers = {"Authorization": f"Bearer {self._options.key}"}
        async with async_client(
            self._options.url, timeout_s=self._options.timeout_s, headers=headers
        ) as client:
            while True:
                await self._queue.filled.wait()
                await asyncio.sleep(0)  # other tasks may publish in the same turn of the event loop
                await self._send(client)

    async def _send(self, client: httpx.AsyncClient) -> None:
        """Send one batch, with all its attempts."""
        backoff = self._options.backoff()
        for left in reversed(range(self._options.attempts)):
            batch = self._queue.next_batch(1 if self._alone else MAX_BATCH_MESSAGES, MAX_BATCH_BYTES)
            try:
                results = await self._deliver(client, batch)
            except PublishError as error:
                if error.status in _OF_A_MESSAGE and len(batch) > 1:
                    self._alone = len(batch)
                    self._queue.requeue()
                    return
                if not error.retryable:
                    await self._halt(error)
                    return
                if not left:
                    self._queue.fail_all(HaltedError.of(error))
                    return
                wait_s = backoff.next(told_s=error.retry_after_s)
                self._options.report(error, wait_s)
            else:
                self._refused.reset()
                self._alone = max(self._alone - len(batch), 0)
                kept = len(results) if not left else _decided(results)
                for result in results[:kept]:
                    self._queue.settle(result)
                if kept == len(results):
                    return
                wait_s = backoff.next()
            self._queue.requeue()
            await asyncio.sleep(wait_s)

    async def _halt(self, error: PublishError) -> None:
        """Fail all messages, and wait: a wrong key stays wrong for hours. The next publication tries again."""
        self._alone = 0
        wait_s = self._refused.next(told_s=error.retry_after_s)
        self._options.report(error, wait_s)
        self._queue.refuse_all(HaltedError.of(error))
        await asyncio.sleep(wait_s)
        self._queue.refusal = None

    async def _deliver(self, client: httpx.AsyncClient, batch: list[QueuedMessage]) -> list[Result]:
        """Send one request and return a result for each message.

        Raises:
            PublishError: if the whole request was refused, or not answered.
        """
        lines = [b"{%b}" % entry.message.members for entry in batch]
        if len(batch) == 1:
            try:
                answer = await self._post(client, "/v1/publish", lines[0], "application/json")
            except PublishError as error:
                if error.status in _OF_THE_MESSAGE and not error.retryable:
                    return [error]
                raise
            return [self._receipt(answer, batch[0])]
        answer = await self._post(
            client, "/v1/publish/batch", b"\n".join(lines) + b"\n", "application/x-ndjson"
        )
        items = answer.get("results")
        if not isinstance(items, list) or len(items) != len(batch):
            raise self._not_a_relay()
        return [self._result(item, entry) for item, entry in zip(items, batch, strict=True)]

    def _result(self, item: Any, entry: QueuedMessage) -> Result:
        if not isinstance(item, dict):
            raise self._not_a_relay()
        if "code" in item:
            return PublishError(
                str(item["code"]), str(item.get("message", "")), retryable=item.get("retryable") is True
            )
        return self._receipt(item, entry)

    def _receipt(self, answer: dict[str, Any], entry: QueuedMessage) -> Receipt:
        epoch, seq, dropped = answer.get("epoch"), answer.get("seq"), answer.get("dropped")
        if not isinstance(epoch, str) or not isinstance(seq, int):
            raise self._not_a_relay()
        if dropped is not None and dropped != "stale" and dropped != "duplicate":
            raise self._not_a_relay()
        return Receipt(channel=entry.message.channel, epoch=epoch, seq=seq, dropped=dropped)

    async def _post(
        self, client: httpx.AsyncClient, path: str, body: bytes, content_type: str
    ) -> dict[str, Any]:
        try:
            response = await client.post(
                self._options.url + path, content=body, headers={"Content-Type": content_type}
            )
        except httpx.TransportError as error:
            raise self._options.unreachable(str(error) or type(error).__name__) from None
        if response.status_code == 200:
            answer = read_json(response.content)
            if answer is None:
                raise self._not_a_relay()
            return answer
        problem = read_problem(response.status_code, response.content, response.headers.get("retry-after"))
        raise PublishError(
            problem.code,
            problem.message,
            status=response.status_code,
            retryable=problem.retryable,
            retry_after_s=problem.retry_after_s,
        )

    def _not_a_relay(self) -> PublishError:
        return self._options.not_a_relay(status=200)


def _decided(results: list[Result]) -> int:
    """Return how many results are final. All later ones are retryable, for instance because of a quota.

    Those can be sent again in order. A retryable result before an accepted one is final as well: sent again after newer
    values of its channel, it would bring an old price back.
    """
    count = len(results)
    while count and isinstance(last := results[count - 1], PublishError) and last.retryable:
        count -= 1
    return count
