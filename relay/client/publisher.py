"""Publishing over HTTP, for backends.

Every call waits for the relay's answer, and that is the back-pressure: a relay in need slows its publishers
down instead of letting them fill somebody's memory. Lost connections and `429`/`503` are tried again, a
bounded number of times, with full jitter behind the server's own Retry-After.

A request that broke off may have been accepted, so trying again can publish a value twice, under two `seq`s.
For channels whose value is whole (prices) that is harmless, and better than losing one.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from relay.client.answers import check_base_url, read_json, read_problem
from relay.client.backoff import Backoff
from relay.client.drafts import Message, Position, encode_draft
from relay.client.errors import PublishError
from relay.core.errors import ConfigurationError
from relay.trust import certificates_for

MAX_BATCH_MESSAGES = 1000
MAX_BATCH_BYTES = 1 << 20
"""The relay's bounds for one request: 1000 messages, 1 MiB."""

ATTEMPTS = 6
"""Full jitter over 0.5, 1, 2, 4 and 8 s: a relay that restarts is back within that time."""

_KEY = re.compile(r"[A-Za-z0-9_-]+\.[\x21-\x7e]+", re.ASCII)

Result = Position | PublishError


class BatchError(PublishError):
    """A whole request of a batch failed; `done` are the results of the requests before it."""

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
    """A publisher with one pool of kept-alive connections: `async with Publisher(url, key) as publisher: …`.

    Args:
        url: the relay's internal HTTP address, like `http://127.0.0.1:8002`.
        key: the publisher key, `name.secret`.
        timeout_s: how long one attempt may take, in seconds.
        attempts: how often one request is sent at most.
        connections: how many requests may be under way at once; further callers wait. Values of one channel
            stay in order only if one task publishes them.
        backoff: makes the waits between the attempts of one request.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_s: float = 10.0,
        attempts: int = ATTEMPTS,
        connections: int = 8,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._url = check_base_url(url, ("http", "https"))
        if not _KEY.fullmatch(key):
            raise ConfigurationError(
                "The publisher key is not of the form name.secret; `relay keys publisher NAME` makes one."
            )
        self._key = key
        self._timeout_s = timeout_s
        self._attempts = max(1, attempts)
        self._connections = connections
        self._backoff = backoff
        self._client: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"Publisher({self._url!r})"

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=httpx.Timeout(self._timeout_s, pool=None),  # waiting for the pool is the back-pressure
            limits=httpx.Limits(
                max_connections=self._connections, max_keepalive_connections=self._connections
            ),
            verify=certificates_for(self._url),
            trust_env=False,  # a proxy from the environment must not get to see the key
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def publish(self, channel: str, data: Any, source_ts: int | None = None) -> Position:
        """Publish one value; returns its position once the relay has stored it and handed it to the fan-out.

        Args:
            channel: an exact channel, like `prices.BTC-USD`.
            data: any object that JSON has, or `bytes` or `str` of JSON, which are sent verbatim.
            source_ts: when the value came about, in Unix milliseconds.

        Raises:
            PublishError: if it was refused, or every attempt failed (`retryable` is true then).
        """
        body = encode_draft(Message(channel=channel, data=data, source_ts=source_ts))
        answer = await self._post("/v1/publish", body, "application/json")
        return self._position(answer)

    async def publish_many(self, messages: Iterable[Message | tuple[str, Any]]) -> list[Result]:
        """Publish many values, a thousand to a request, and return one result each, in their order.

        An entry of the result is a `PublishError` where that one value was refused; the others are published
        all the same. Refused values are not sent again by themselves, because behind newer values of their
        channel they would bring an old price back.

        Raises:
            PublishError: if a whole request was refused, or all its attempts failed. The error's `done` holds
                the results of the requests before it; of that request itself, and of what comes after it,
                nothing is known to be published.
        """
        results: list[Result] = []
        for batch in _batches(messages):
            bodies = [item for item in batch if isinstance(item, bytes)]
            try:
                answers = iter(await self._post_batch(bodies) if bodies else ())
            except PublishError as error:
                raise BatchError(error, results) from None
            results.extend(next(answers) if isinstance(item, bytes) else item for item in batch)
        return results

    async def _post_batch(self, bodies: list[bytes]) -> list[Result]:
        answer = await self._post("/v1/publish/batch", b"\n".join(bodies) + b"\n", "application/x-ndjson")
        items = answer.get("results")
        if not isinstance(items, list) or len(items) != len(bodies):
            raise self._not_a_relay(200)
        return [self._result(item) for item in items]

    def _result(self, item: Any) -> Result:
        if isinstance(item, dict) and "code" in item:
            return PublishError(
                str(item["code"]), str(item.get("message", "")), retryable=item.get("retryable") is True
            )
        return self._position(item if isinstance(item, dict) else {})

    def _position(self, answer: dict[str, Any]) -> Position:
        channel, epoch, seq = answer.get("channel"), answer.get("epoch"), answer.get("seq")
        if not isinstance(channel, str) or not isinstance(epoch, str) or not isinstance(seq, int):
            raise self._not_a_relay(200)
        return Position(channel=channel, epoch=epoch, seq=seq)

    async def _post(self, path: str, body: bytes, content_type: str) -> dict[str, Any]:
        backoff = self._backoff()
        for left in reversed(range(self._attempts)):
            try:
                return await self._attempt(path, body, content_type)
            except PublishError as error:
                if not error.retryable or not left:
                    raise
                await asyncio.sleep(backoff.next(told_s=error.retry_after_s))
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, path: str, body: bytes, content_type: str) -> dict[str, Any]:
        if self._client is None:
            raise RuntimeError("Use the publisher inside `async with Publisher(url, key) as publisher:`.")
        try:
            response = await self._client.post(
                self._url + path, content=body, headers={"Content-Type": content_type}
            )
        except httpx.TransportError as error:
            raise PublishError(
                "unreachable",
                f"The relay at {self._url} can't be reached: {str(error) or type(error).__name__}.",
                retryable=True,
            ) from None
        if response.status_code == 200:
            answer = read_json(response.content)
            if answer is None:
                raise self._not_a_relay(200)
            return answer
        problem = read_problem(response.status_code, response.content, response.headers.get("retry-after"))
        raise PublishError(
            problem.code,
            problem.message,
            status=response.status_code,
            retryable=problem.retryable,
            retry_after_s=problem.retry_after_s,
        )

    def _not_a_relay(self, status: int) -> PublishError:
        return PublishError(
            "unexpected_answer",
            f"What answers at {self._url} does not publish for this relay.",
            status=status,
        )


def _batches(messages: Iterable[Message | tuple[str, Any]]) -> Iterator[list[bytes | PublishError]]:
    """Cut the encoded messages into requests; one that can't be encoded is there as the error it will be."""
    batch: list[bytes | PublishError] = []
    size = 0
    for message in messages:
        item = _encode(message)
        length = len(item) + 1 if isinstance(item, bytes) else 0
        if len(batch) == MAX_BATCH_MESSAGES or size + length > MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def _encode(message: Message | tuple[str, Any]) -> bytes | PublishError:
    if isinstance(message, tuple):
        message = Message(channel=message[0], data=message[1])
    try:
        return encode_draft(message)
    except PublishError as error:
        return error
