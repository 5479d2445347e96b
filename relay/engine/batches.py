"""Batches of items for one script call: what comes while the last call is in progress is the next batch."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from relay.core.errors import UnavailableError
from relay.engine.tasks import LastingTask

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_ITEMS = 64
MAX_BYTES = 96 * 1024
"""Items in one script call, and their bytes. While a script runs, the engine does nothing else. So many prices take a
millisecond of its CPU, and so many bytes two: each 64 KiB are hashed, copied and written in 1.1 ms."""


class Batches(Generic[Item, Result]):
    """Calls `send(items) -> results`, one batch after the other.

    Each item of a batch gets the `UnavailableError` that `send` raises. A result that is an error is raised to its
    caller. An item that waited for `answer_within_s` is not sent. `failed` makes the error of an item, from one
    sentence.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        name: str,
        answer_within_s: float,
        failed: Callable[[str], UnavailableError],
        max_waiting: int = 20_000,
    ) -> None:
        self._send = send
        self._answer_within_s = answer_within_s
        self._failed = failed
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Item, asyncio.Future[Result], float, int]] = deque()
        self._sent: Sequence[asyncio.Future[Result]] = ()
        self._wake = asyncio.Event()
        self._closed = False
        self.task = LastingTask(self._run, name=name, recover=self._recover)

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, item: Item, size: int = 0) -> "asyncio.Future[Result]":
        """Queue an item of `size` bytes and return the future of its result.

        A caller that goes away does not remove the item.
        """
        loop = asyncio.get_running_loop()
        if self._closed or len(self._waiting) >= self._max_waiting:
            raise self._failed("The relay stops." if self._closed else "Too many calls wait for the engine.")
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future, loop.time(), size))
        self._wake.set()
        return future

    async def aclose(self) -> None:
        """Fail what waits, and end the task."""
        self._closed = True
        for future in (*self._sent, *(future for _, future, _, _ in self._waiting)):
            _fail(future, self._failed("The relay stops."))
        await self.task.aclose()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._next():
                self._sent = [future for _, future in batch]
                try:
                    results = await self._send([item for item, _ in batch])
                except UnavailableError as error:
                    for future in self._sent:
                        _fail(future, error)
                    continue
                for future, result in zip(self._sent, results, strict=True):
                    if isinstance(result, Exception):
                        _fail(future, result)
                    elif not future.done():
                        future.set_result(result)

    async def _recover(self, error: Exception) -> None:
        for future in self._sent:
            _fail(
                future,
                self._failed(
                    f"The call of the engine failed: {error!r}. It is unknown whether it was executed."
                ),
            )
        self._wake.set()

    def _next(self) -> "list[tuple[Item, asyncio.Future[Result]]]":
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        bytes_left = MAX_BYTES
        oldest = asyncio.get_running_loop().time() - self._answer_within_s
        while self._waiting and len(batch) < MAX_ITEMS:
            item, future, since, size = self._waiting[0]
            if since < oldest:
                _fail(future, self._failed("The engine did not answer in time, and this was not sent."))
            else:
                bytes_left -= size
                if bytes_left < 0 and batch:
                    break
                batch.append((item, future))
            self._waiting.popleft()
        return batch


def _fail(future: "asyncio.Future[Result]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # its caller may have gone away
