"""Group commit: calls that arrive while a batch is being written share the next one.

SQLite and a log file both cost one thread hop and one commit however many rows go with it. A thousand tokens
that are claimed at once then cost a handful of commits, and a lone claim waits for nobody: what arrives while
one batch is on its thread makes up the next. Only what says that it has time waits for company.
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
Answer = TypeVar("Answer")

MAX_BATCH = 512
"""Items in one commit: enough to make the hop's cost vanish, few enough that the first waits not long."""


class _Place(NamedTuple, Generic[Item, Result]):
    """An item that waits, whom to tell if anybody, and since when (the loop's seconds)."""

    item: Item
    future: "asyncio.Future[Result] | None"
    since: float


class GroupCommit(Generic[Item, Result]):
    """Runs `commit(items) -> results` on one thread of its own, one batch after the other.

    `commit` gives one result an item, in order; what it raises is raised by each `submit` of that batch.
    Bounded by `max_waiting`: beyond it `submit` raises `asyncio.QueueFull` at once. Bounded in time too: a future that
    has no result `answer_within_s` after its `submit` raises `TimeoutError`, though its item may still be committed.
    Made and used on one loop.

    The thread is fed by a queue and answers by one call on the loop. An executor's futures and their locks cost
    a lone claim 70 µs of CPU more, and a task to wait for them as much again.
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
        # a daemon, because a disk that hangs must not keep the process from ending; `aclose` waits for it
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._waiting: deque[_Place[Item, Result]] = deque()
        self._in_commit: Sequence[_Place[Item, Result]] = ()
        self._max_waiting = max_waiting
        self._next: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that are not committed yet, those on the thread included."""
        return len(self._waiting) + len(self._in_commit)

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Queue `item`; the future has its result once it is committed.

        A caller that stops waiting for the future does not take the item back.

        Raises:
            asyncio.QueueFull: if too many wait already, or after `aclose`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._append(_Place(item, future, loop.time()))
        if self._overdue is None:  # one timer for all: one each, as asyncio.timeout sets, costs 20 µs
            self._overdue = loop.call_later(self._answer_within_s, self._give_up)
        if not self._in_commit and self._next is None:
            self._next = loop.call_soon(self._begin)  # what else comes in this turn goes along
        return future

    def post(self, item: Item, *, within_s: float) -> None:
        """Queue `item`, whose result nobody asks for. It waits so long for others to share its commit, and goes along
        with one that may not wait.

        Raises:
            asyncio.QueueFull: as `submit` does.
        """
        self._append(_Place(item, None, 0.0))
        if self._timer is None and self._next is None and not self._in_commit:
            self._timer = asyncio.get_running_loop().call_later(within_s, self._begin)

    async def run(self, call: Callable[[], Answer]) -> Answer:
        """Run `call` on the same thread, between batches."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        self._put(partial(_run, call, loop, answered))
        return await answered

    async def aclose(self) -> None:
        """Commit what waits, then end the thread. Later submissions are refused."""
        self._closed = True
        if self._idle is None:
            self._idle = asyncio.get_running_loop().create_future()
        self._begin()
        await asyncio.shield(self._idle)
        if self._overdue is not None:
            self._overdue.cancel()
        if self._thread.is_alive():
            self._jobs.put(None)
            # the thread may still be in a `run`, which the loop must not wait for
            await asyncio.to_thread(self._thread.join)

    def _append(self, place: _Place[Item, Result]) -> None:
        if self._closed or len(self._waiting) >= self._max_waiting:
            raise asyncio.QueueFull
        self._waiting.append(place)

    def _begin(self) -> None:
        """Hand the next batch to the thread, unless one is there already: it comes back here when it is done."""
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

    def _done(self, batch: Sequence[_Place[Item, Result]], results: Sequence[Result] | BaseException) -> None:
        self._in_commit = ()
        self._begin()
        if isinstance(results, BaseException):
            for place in batch:
                if place.future is not None:
                    _fail(place.future, results)
            return
        for place, result in zip(batch, results, strict=True):
            if place.future is not None and not place.future.done():
                place.future.set_result(result)

    def _give_up(self) -> None:
        """Tell those who have waited for too long, and look again when the next one will have."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._overdue = None
        for place in itertools.chain(self._in_commit, self._waiting):
            if place.future is None:
                continue
            if now < (due := place.since + self._answer_within_s):
                self._overdue = loop.call_at(due, self._give_up)
                return
            _fail(place.future, TimeoutError(f"no answer within {self._answer_within_s:g} s"))

    def _put(self, job: Callable[[], None]) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._jobs.put(job)

    # What follows runs on the thread.

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _commit_batch(self, batch: Sequence[_Place[Item, Result]], loop: asyncio.AbstractEventLoop) -> None:
        results: Sequence[Result] | BaseException
        try:
            results = self._commit([place.item for place in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"A commit of {len(batch)} items gave {len(results)} results.")
        except BaseException as error:  # noqa: BLE001  # whatever it is belongs to the callers, not to this thread
            results = error
        _tell(loop, self._done, batch, results)


def _run(
    call: Callable[[], Answer], loop: asyncio.AbstractEventLoop, answered: "asyncio.Future[Answer]"
) -> None:
    try:
        answer = call()
    except BaseException as error:  # noqa: BLE001  # likewise
        _tell(loop, _answer, answered, answered.set_exception, error)
    else:
        _tell(loop, _answer, answered, answered.set_result, answer)


def _fail(future: "asyncio.Future[Result]", error: BaseException) -> None:
    if not future.done():  # a caller that was cancelled has stopped waiting
        future.set_exception(error)
        future.exception()  # nobody may be left to ask; asyncio would log it as never retrieved


def _answer(answered: "asyncio.Future[Answer]", give: Callable[[object], None], answer: object) -> None:
    if not answered.done():
        give(answer)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended without `aclose`: nobody is left to be told
        loop.call_soon_threadsafe(call, *arguments)
