"""Group commit: items that arrive while a batch is being written form the next batch.

A write to SQLite or to a log file costs one thread hop and one commit, for one row or for many. A thousand tokens that
are claimed at once then cost a few commits. A single claim is committed at once and does not wait for others. Under
load, a batch waits while each turn of the event loop brings further items. Items that were posted with a delay wait
longer.
"""

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Returned = TypeVar("Returned")

MAX_BATCH = 512
"""Items in one commit. There are enough to make the cost of the hop small, and so few that the first waits briefly."""
GATHER_S = 0.02
"""Seconds for which a batch waits at most while each turn of the loop brings further items. Two threads that take turns
with the interpreter cost up to a millisecond of CPU a batch, however small it is. At 1,500 tokens a second a batch has
30 instead of 3 items, and a token takes a fifth less CPU."""


class _Waiting(NamedTuple, Generic[Item, Result]):
    """An item that waits, its future if it has one, and the time of its `submit` (the loop's seconds)."""

    item: Item
    future: "asyncio.Future[Result] | None"
    since: float


class GroupCommit(Generic[Item, Result]):
    """Runs `commit(items) -> results` on a thread of its own, one batch after the other.

    `commit` returns one result per item, in order. If it raises, every future of the batch raises the same. At most
    `max_waiting` items may wait. A future that has no result `answer_within_s` after its `submit` raises
    `TimeoutError`, but its item may still be committed. Create and use it on one event loop.

    The thread gets its work from a queue and answers with one call on the loop. With an executor, its futures and locks
    would add 70 µs of CPU to a single claim, and a task that waits for them would add as much again.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        name: str,
        answer_within_s: float,
        max_waiting: int = 100_000,
    ) -> None:
        self._commit = commit
        self._answer_within_s = answer_within_s
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, because a disk that hangs must not keep the process from ending. `aclose` waits for it.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._in_commit: Sequence[_Waiting[Item, Result]] = ()
        self._max_waiting = max_waiting
        self._next: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """The number of items that are not committed yet, including those on the thread."""
        return len(self._waiting) + len(self._in_commit)

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Queue `item`. The future gets its result when it is committed.

        A caller that stops waiting for the future does not remove the item from the queue.

        Raises:
            asyncio.QueueFull: if too many wait already, or after `aclose`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._append(_Waiting(item, future, loop.time()))
        # one timer for all items: one for each, as asyncio.timeout sets, costs 20 µs
        if self._overdue is None:
            self._overdue = loop.call_later(self._answer_within_s, self._give_up)
        if not self._in_commit and self._next is None:
            self._gather(seen=1)  # later items of this turn join the batch; one alone waits for no others
        return future

    def post(self, item: Item, *, within_s: float) -> None:
        """Queue `item` without a future. It may wait for `within_s` seconds, so that others share its commit.

        Raises:
            asyncio.QueueFull: like `submit`.
        """
        self._append(_Waiting(item, None, 0.0))
        if self._timer is None and self._next is None and not self._in_commit:
            self._timer = asyncio.get_running_loop().call_later(within_s, self._begin)

    async def run(self, call: Callable[[], Returned]) -> Returned:
        """Run `call` on the same thread, between two batches."""
        loop = asyncio.get_running_loop()
        returned: asyncio.Future[Returned] = loop.create_future()
        self._put(partial(_run, call, loop, returned))
        return await returned

    async def aclose(self) -> None:
        """Commit what is waiting, then end the thread. Later calls of `submit` are refused."""
        self._closed = True
        if self._idle is None:
            self._idle = asyncio.get_running_loop().create_future()
        self._begin()
        await asyncio.shield(self._idle)
        if self._overdue is not None:
            self._overdue.cancel()
        if self._thread.is_alive():
            self._jobs.put(None)
            # The thread may still be in a `run`. The event loop must not be blocked by it.
            await asyncio.to_thread(self._thread.join)

    def _append(self, waiting: _Waiting[Item, Result]) -> None:
        if self._closed or len(self._waiting) >= self._max_waiting:
            raise asyncio.QueueFull
        self._waiting.append(waiting)

    def _gather(self, *, seen: int) -> None:
        """Begin in the first turn that brings no item beyond the `seen` ones, or after `GATHER_S`."""
        loop = asyncio.get_running_loop()
        self._next = loop.call_soon(self._gather_further, seen, loop.time() + GATHER_S)

    def _gather_further(self, seen: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        if seen < len(self._waiting) < MAX_BATCH and loop.time() < until:
            self._next = loop.call_soon(self._gather_further, len(self._waiting), until)
        else:
            self._begin()

    def _begin(self) -> None:
        """Hand the next batch to the thread. If the thread has one already, `_done` calls this when it is finished."""
        for handle in (self._next, self._timer):
            if handle is not None:
                handle.cancel()
        self._next = self._timer = None
        if self._in_commit:
            return
        if not self._waiting:
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return
        self._in_commit = batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        self._put(partial(self._commit_batch, batch, asyncio.get_running_loop()))

    def _done(
        self, batch: Sequence[_Waiting[Item, Result]], results: Sequence[Result] | BaseException
    ) -> None:
        self._in_commit = ()
        if self._waiting and not self._closed:
            self._gather(seen=0)
        else:
            self._begin()
        if isinstance(results, BaseException):
            for waiting in batch:
                if waiting.future is not None:
                    _fail(waiting.future, results)
            return
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future is not None and not waiting.future.done():
                waiting.future.set_result(result)

    def _give_up(self) -> None:
        """Fail the futures that have waited for too long, and set the timer for the next one."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._overdue = None
        for waiting in itertools.chain(self._in_commit, self._waiting):
            if waiting.future is None:
                continue
            if now < (due := waiting.since + self._answer_within_s):
                self._overdue = loop.call_at(due, self._give_up)
                return
            _fail(waiting.future, TimeoutError(f"no answer within {self._answer_within_s:g} s"))

    def _put(self, job: Callable[[], None]) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._jobs.put(job)

    # on the thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _commit_batch(self, batch: Sequence[_Waiting[Item, Result]], loop: asyncio.AbstractEventLoop) -> None:
        results: Sequence[Result] | BaseException
        try:
            results = self._commit([waiting.item for waiting in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"A commit of {len(batch)} items gave {len(results)} results.")
        except BaseException as error:  # noqa: BLE001  # every error belongs to the callers and not to this thread
            results = error
        _call_on(loop, self._done, batch, results)


def _run(
    call: Callable[[], Returned], loop: asyncio.AbstractEventLoop, returned: "asyncio.Future[Returned]"
) -> None:
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001  # as above
        _call_on(loop, _finish, returned, returned.set_exception, error)
    else:
        _call_on(loop, _finish, returned, returned.set_result, value)


def _fail(future: "asyncio.Future[Result]", error: BaseException) -> None:
    if not future.done():  # the caller may have been cancelled
        future.set_exception(error)
        future.exception()  # if the caller has gone, asyncio would log the exception as never retrieved


def _finish(future: "asyncio.Future[Returned]", set_value: Callable[[object], None], value: object) -> None:
    if not future.done():
        set_value(value)


def _call_on(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed without `aclose`: there is no caller left
        loop.call_soon_threadsafe(call, *arguments)
