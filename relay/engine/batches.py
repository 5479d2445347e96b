"""Batches of items for one script call: what comes while the last call is in progress is the next batch."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_ITEMS = 64
"""Items in one script call. While a script runs, the engine does nothing else; this many take about a millisecond."""
MAX_BYTES = 256 * 1024


class Batches(Generic[Item, Result]):
    """Calls `send(items) -> results`, one batch after the other. If it raises, each item of the batch gets the error.

    `size` returns the bytes of an item. An item that waited for `answer_within_s` is not sent: `expired` makes its
    error.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        name: str,
        answer_within_s: float,
        expired: Callable[[], Exception],
        size: Callable[[Item], int] = lambda _item: 0,
        max_waiting: int = 20_000,
    ) -> None:
        self._send = send
        self._size = size
        self._answer_within_s = answer_within_s
        self._expired = expired
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Item, asyncio.Future[Result], float]] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self._task = asyncio.create_task(self._run(), name=f"relay-engine-{name}")

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        """Queue an item and return the future of its result. A caller that goes away does not remove the item."""
        loop = asyncio.get_running_loop()
        if self._closed or len(self._waiting) >= self._max_waiting:
            raise self._expired()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future, loop.time()))
        self._wake.set()
        return future

    async def aclose(self) -> None:
        """Fail what waits, and end the task."""
        self._closed = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for _, future, _ in self._waiting:
            _fail(future, self._expired())

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._next():
                futures = [future for _, future in batch]
                try:
                    results = await self._send([item for item, _ in batch])
                except asyncio.CancelledError:
                    for future in futures:
                        _fail(future, self._expired())
                    raise
                except Exception as error:  # noqa: BLE001  # each caller gets the error; the task goes on
                    for future in futures:
                        _fail(future, error)
                    continue
                for future, result in zip(futures, results, strict=True):
                    if not future.done():
                        future.set_result(result)

    def _next(self) -> "list[tuple[Item, asyncio.Future[Result]]]":
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        bytes_left = MAX_BYTES
        oldest = asyncio.get_running_loop().time() - self._answer_within_s
        while self._waiting and len(batch) < MAX_ITEMS:
            item, future, since = self._waiting[0]
            if since < oldest:
                _fail(future, self._expired())
            else:
                bytes_left -= self._size(item)
                if bytes_left < 0 and batch:
                    break
                batch.append((item, future))
            self._waiting.popleft()
        return batch


def _fail(future: "asyncio.Future[Result]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # its caller may have gone away
