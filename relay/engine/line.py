"""A line to the engine: one connection, the task that owns it, and the calls that wait for it.

Requests never use a connection themselves: a request that is cancelled in the middle of a reply would leave the
connection unusable. What waits when the task is free goes out in one write.

A call that got no reply is sent again on a new connection, until its time is over. So each call must be one that can be
repeated: a script that recognizes a call that it has executed, or a command that only reads.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import structlog

from relay.core.errors import Reason, UnavailableError
from relay.engine.connection import Command, EngineConnection, EngineError, RefusedError, open_connection
from relay.engine.options import EngineOptions
from relay.engine.scripts import Script
from relay.engine.shards import place
from relay.engine.tasks import LastingTask, close_all

_MAX_CALLS = 32
"""Calls in one write. The engine answers them one after the other."""
_MAX_WAITING = 10_000
_AGAIN_S = (0.02, 0.5)
"""Shortest and longest wait before another attempt to connect."""

log = structlog.get_logger("relay.engine")


class _Call:
    __slots__ = ("arguments", "due", "future", "keys", "script")

    def __init__(
        self, called: Script | None, keys: Sequence[str], arguments: Command, due: float, future: Any
    ) -> None:
        self.script, self.keys, self.arguments = called, keys, arguments
        self.due = due
        self.future: asyncio.Future[Any] = future

    def command(self, *, with_text: bool = False) -> Command:
        if self.script is None:
            return self.arguments
        how = ("EVAL", self.script.text) if with_text else ("EVALSHA", self.script.sha)
        return (*how, len(self.keys), *self.keys, *self.arguments)


class Line:
    """Calls over one connection, to the server that has a shard.

    `name` is for the log. `reason` is that of the errors that callers get. Without `repeats` a call that got no reply
    fails at once, because a second one would count twice.
    """

    def __init__(
        self,
        options: EngineOptions,
        shard: str,
        *,
        name: str,
        answer_within_s: float,
        reason: Reason = Reason.STATE_UNAVAILABLE,
        repeats: bool = True,
    ) -> None:
        self._repeats = repeats
        self._address = options.address
        self.shard = shard
        # A key that never exists. While a slot of a cluster is moved, its server refuses a script that names a missing
        # key. Else the script would fail in the middle, at a key that it does not name and that has moved already.
        self._guard = [options.key(shard, "none")] if options.address.kind == "cluster" else []
        self._name = name
        self._answer_within_s = answer_within_s
        self._reason = reason
        self._waiting: deque[_Call] = deque()
        self._sent: Sequence[_Call] = ()
        self._wake = asyncio.Event()
        self._connection: EngineConnection | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._failure = ""
        self._closed = False
        self.task = LastingTask(self._run, name=name, recover=self._recover)

    async def call(self, called: Script, keys: Sequence[str], arguments: Command = ()) -> Any:
        """Run a script and return its reply.

        Raises:
            UnavailableError: if no reply came in time. The script may have run or not.
            RefusedError: if the script answered with an error.
        """
        return await self._submit(called, [*keys, *self._guard], arguments)

    async def read(self, *command: bytes | str | float) -> Any:
        """Send a command that only reads, and return its reply. Raises as `call`."""
        return await self._submit(None, (), command)

    async def aclose(self) -> None:
        """Close the connection. Calls that wait fail."""
        self._closed = True
        if self._overdue is not None:
            self._overdue.cancel()
        for waiting in (*self._sent, *self._waiting):
            self._fail(waiting, "the relay stops")
        await close_all(self.task.aclose, self._disconnect)

    async def _submit(self, called: Script | None, keys: Sequence[str], arguments: Command) -> Any:
        loop = asyncio.get_running_loop()
        if self._closed or len(self._waiting) >= _MAX_WAITING:
            raise self._error("the relay stops" if self._closed else "too many calls wait for it")
        due = loop.time() + self._answer_within_s
        future = loop.create_future()
        self._waiting.append(_Call(called, keys, arguments, due, future))
        if self._overdue is None:  # one timer for all calls
            self._overdue = loop.call_at(due, self._give_up)
        self._wake.set()
        return await future

    async def _run(self) -> None:
        """Send what waits, one batch after the other, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while calls := self._next():
                self._sent = calls
                try:
                    await self._answer(calls)
                except EngineError as error:
                    self._failed(error)
                    if self._repeats or self._connection is None:  # without a connection nothing was sent
                        self._waiting.extendleft(reversed(calls))
                    else:
                        for waiting in calls:
                            self._fail(waiting, str(error))
                    await self._disconnect()
                    self._sent = ()
                    await self._pause()
                self._sent = ()

    async def _recover(self, error: Exception) -> None:
        """Fail the calls of a write that went wrong here. They may be the reason, so they are not sent again."""
        for waiting in self._sent:
            self._fail(waiting, f"a fault in the relay, {error!r}")
        self._sent = ()
        await self._disconnect()  # a reply may still be on its way
        self._wake.set()

    def _next(self) -> list[_Call]:
        calls: list[_Call] = []
        while self._waiting and len(calls) < _MAX_CALLS:
            waiting = self._waiting.popleft()
            if not waiting.future.done():  # its caller went away, or its time is over
                calls.append(waiting)
        return calls

    async def _answer(self, calls: Sequence[_Call]) -> None:
        if self._connection is None:
            self._connection = await open_connection(self._address, self.shard)
        replies = await self._connection.run(
            [waiting.command() for waiting in calls], within_s=self._answer_within_s
        )
        unknown = [
            index
            for index, reply in enumerate(replies)
            if isinstance(reply, RefusedError) and reply.code == "NOSCRIPT"
        ]
        if unknown:  # none of them was executed
            again = await self._connection.run(
                [calls[index].command(with_text=True) for index in unknown], within_s=self._answer_within_s
            )
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        if self._failure:
            log.info("the engine answers again", line=self._name)
            self._failure = ""
        for waiting, reply in zip(calls, replies, strict=True):
            if waiting.future.done():
                continue
            if isinstance(reply, RefusedError):
                self._refuse(waiting, reply)
            else:
                waiting.future.set_result(reply)

    def _refuse(self, waiting: _Call, reply: RefusedError) -> None:
        # A script that could not write because the memory is full, or that another script blocks, is no fault of ours.
        if reply.code in ("OOM", "BUSY"):
            self._failed(reply)
            self._fail(waiting, str(reply))
            return
        waiting.future.set_exception(reply)
        waiting.future.exception()  # its caller may have gone away

    def _failed(self, error: EngineError) -> None:
        if not self._failure:
            log.warning(
                "the engine does not answer", line=self._name, engine=str(self._address), error=str(error)
            )
        self._failure = str(error)

    async def _pause(self) -> None:
        """Wait a little longer after each failure in a row, and not longer than until something is overdue."""
        shortest, longest = _AGAIN_S
        oldest = self._waiting[0].due if self._waiting else 0.0
        left = oldest - asyncio.get_running_loop().time()
        waited = self._answer_within_s - left
        await asyncio.sleep(min(longest, max(shortest, waited / 2)))
        self._wake.set()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _give_up(self) -> None:
        """Fail the calls whose time is over, and set the timer for the next one."""
        loop = asyncio.get_running_loop()
        self._overdue = None
        for waiting in (*self._sent, *self._waiting):
            if waiting.future.done():
                continue
            if loop.time() < waiting.due:
                self._overdue = loop.call_at(waiting.due, self._give_up)
                return
            self._fail(waiting, self._failure or f"no answer within {self._answer_within_s:g} s")

    def _fail(self, waiting: _Call, why: str) -> None:
        if not waiting.future.done():
            waiting.future.set_exception(self._error(why))
            waiting.future.exception()

    def _error(self, why: str) -> UnavailableError:
        return UnavailableError(
            self._reason, f"The engine did not answer: {why.rstrip('.')}.", setting="engine.url"
        )


class Lines:
    """A line to each shard of a kind. The arguments are those of `Line`."""

    def __init__(
        self,
        options: EngineOptions,
        kind: str,
        *,
        name: str,
        answer_within_s: float,
        reason: Reason = Reason.STATE_UNAVAILABLE,
        repeats: bool = True,
    ) -> None:
        self._lines = [
            Line(options, shard, name=name, answer_within_s=answer_within_s, reason=reason, repeats=repeats)
            for shard in options.shards(kind)
        ]

    def of(self, text: str) -> Line:
        """Return the line to the shard that has a session or another name."""
        return self._lines[place(text, len(self._lines))]

    @property
    def restarts(self) -> int:
        """How often the task of a line failed and was started again."""
        return sum(line.task.restarts for line in self._lines)

    async def aclose(self) -> None:
        """Close the connections. Calls that wait fail."""
        await close_all(*(line.aclose for line in self._lines))
