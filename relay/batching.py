"""Group commit: calls that arrive while a batch is being written share the next one.

SQLite and a log file both cost one thread hop and one commit however many rows go with it. A thousand tokens
that are claimed at once then cost a handful of commits, and a lone claim waits for nobody: what arrives while
one batch is on its thread makes up the next. Only what says that it has time waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH = 512
"""Items in one commit: enough to make the hop's cost vanish, few enough that the first waits not long."""


class GroupCommit(Generic[Item, Result]):
    """Runs `commit(items) -> results` on one thread of its own, one batch after the other.

    `commit` gives one result an item, in order; what it raises is raised by each `submit` of that batch.
    Bounded by `max_waiting`: beyond it `submit` raises `asyncio.QueueFull` at once.
    """

    def __init__(
        self, commit: Callable[[Sequence[Item]], Sequence[Result]], *, name: str, max_waiting: int = 100_000
    ) -> None:
        self._commit = commit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._in_commit = 0
        self._max_waiting = max_waiting
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that are not committed yet, those on the thread included."""
        return len(self._waiting) + self._in_commit

    def submit(self, item: Item, *, within_s: float = 0) -> asyncio.Future[Result]:
        """Queue `item`; the future has its result once it is committed.

        `within_s` lets it wait so long for others to share its commit; one that may not wait takes it along.

        A caller that stops waiting for the future does not take the item back.

        Raises:
            asyncio.QueueFull: if too many wait already, or after `aclose`.
        """
        if self._closed or len(self._waiting) >= self._max_waiting:
            raise asyncio.QueueFull
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if not within_s:
            self._start()
        elif self._task is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(within_s, self._start)
        return future

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run `call` on the same thread, between batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def aclose(self) -> None:
        """Commit what waits, then end the thread. Later submissions are refused."""
        self._closed = True
        while self._waiting or self._task is not None:
            # `wait`, because to await the task would cancel it, and its callers with it, along with this call
            await asyncio.wait({self._start()})
        # the thread may still be in a `run`, which the loop must not wait for
        await asyncio.to_thread(self._thread.shutdown)

    def _start(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if self._waiting and not task.cancelled():  # submitted after its last look at the queue
            self._start()

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            self._in_commit = len(batch)
            try:
                await self._work_on(batch)
            finally:
                self._in_commit = 0

    async def _work_on(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._commit, [item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"A commit of {len(batch)} items gave {len(results)} results.")
        except asyncio.CancelledError:
            for _, future in batch:  # the loop is being torn down; nobody will learn the outcome
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to the callers, not to this task
            for _, future in batch:
                if not future.done():  # a caller that was cancelled has stopped waiting
                    future.set_exception(error)
                    future.exception()  # nobody may be left to ask; asyncio would log it as never retrieved
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
