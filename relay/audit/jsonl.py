"""The audit log as JSON lines in a file, hash-chained.

The event loop only queues an event and its time. One thread makes the record, hashes it and writes it, many events
in one write (`GroupCommit`). With a write for each event, a burst of connections would cost a thousand system calls a
second, and on the event loop they would delay prices.

No event is lost silently. `record` raises, so that its caller gives nothing away. Lost events of `note` are counted.
An `audit.gap` record with the counts is written before any other event, and a task tries that again and again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from relay.audit.chain import Link
from relay.audit.checkpoints import Moment
from relay.audit.logfile import LogFile
from relay.audit.writer import Entry, LogOptions, LogWriter, cause_of
from relay.core.errors import Reason, UnavailableError
from relay.core.events import Event
from relay.group_commit import GroupCommit

MAX_NOTES = 50_000
"""Noted events that may wait: some seconds of writing, and 60 MB. A longer queue would only hide a dead disk."""

NOTE_WITHIN_S = 0.25
"""Seconds that a noted event may wait for others. The record of a token takes it along earlier. Two threads that take
turns with the interpreter move the same memory between two cores, so that each write costs about a millisecond,
however few events it has. At 1,700 connections a second, the log costs a connection 68 µs with 0.05 s and 27 µs with
this value (medians of 5 pairs)."""

_MAX_WAITING = MAX_NOTES + 10_000
"""Length of the whole queue. The difference is reserved for `record`, or refused connections could stop the issuing of
tokens."""

_ANSWER_WITHIN_S = 5.0
"""Seconds that `record` waits, so that a hanging disk becomes a 503. It is enough for the queue of a burst."""

_log = structlog.get_logger("relay.audit")


CHECKPOINT_WITHIN_S = 60.0
"""Seconds that a record may wait for the checkpoint that signs it, if fewer than `EVERY` records come."""


CHECK_FILE_S = 2.0
"""Seconds between two looks whether another program has renamed or cut the file, if no event comes."""


class JsonlAuditor:
    """An `Auditor` that writes a file. Create it with `open`, end it with `aclose`."""

    def __init__(
        self,
        log_writer: LogWriter,
        *,
        path: Path,
        node: str,
        clock: Callable[[], float],
        retry_s: float,
        keep_head: Callable[[Link], Awaitable[None]] | None,
    ) -> None:
        self._log_writer = log_writer
        self.path = path
        self.node = node
        self.opened = log_writer.opened
        """The link of the last record that was in the file before this process wrote one."""
        self._clock = clock
        self._retry_s = retry_s
        self._keep_head = keep_head
        self._kept: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._signing: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._closed = False
        self._commits: GroupCommit[Entry, Exception | None] = GroupCommit(
            self._commit, name="relay-audit", answer_within_s=_ANSWER_WITHIN_S, max_waiting=_MAX_WAITING
        )

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        node: str,
        is_shared: bool = False,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        retry_s: float = 1.0,
        options: LogOptions | None = None,
        keep_head: Callable[[Link], Awaitable[None]] | None = None,
    ) -> "JsonlAuditor":
        """Open the log at `path` and continue its chain, or start a new one.

        `node` is the name of this relay process in each record. With `is_shared`, other processes write the log too:
        this one takes a file of its own, and `node` gets the number in that file's name. `clock` returns Unix seconds,
        and `steady` the seconds of a clock that never goes back. A failed write is tried again every `retry_s` seconds,
        even if no new event comes. `keep_head` keeps the head of each checkpoint in another place; a failure of it is
        logged.

        Raises:
            ConfigurationError: if the file can't be written, is no audit log, or is written by another process.
        """
        beside = None
        if is_shared:
            beside = path
            file, path, number = LogFile.open_for_process(path)
            node = f"{node}-{number}"
        else:
            file = LogFile.open(path)
        if file.unreadable is not None:
            _log.warning("the audit log ends with a torn line", path=str(path), bytes=file.unreadable.bytes)
        log_writer = LogWriter(
            file,
            path,
            beside=beside,
            node=node,
            clock=clock,
            steady=steady,
            options=options or LogOptions(),
        )
        log_writer.report()
        return cls(log_writer, path=path, node=node, clock=clock, retry_s=retry_s, keep_head=keep_head)

    @property
    def lag(self) -> int:
        """Events that are not in the file yet."""
        return self._commits.waiting

    @property
    def lost(self) -> dict[str, int]:
        """Events that could not be recorded since the log was opened, by action."""
        return self._log_writer.losses.ever()

    @property
    def head(self) -> Link:
        """The link of the last record in the file. Kept in another place, it proves the log's end."""
        return self._log_writer.head

    async def record(self, event: Event) -> None:
        """See `Auditor.record`. An event whose caller stopped waiting may still be written."""
        try:
            self._loop = asyncio.get_running_loop()
            error = await self._commits.submit(Entry(event, self._clock(), noted=False))
        except (TimeoutError, asyncio.QueueFull) as busy:
            error = busy
        if error is not None:
            raise UnavailableError(
                Reason.AUDIT_UNAVAILABLE, f"The audit log could not be written: {_reason(error)}."
            ) from None

    def note(self, event: Event) -> None:
        """See `Auditor.note`."""
        if self._commits.waiting < MAX_NOTES:
            with suppress(asyncio.QueueFull, RuntimeError):  # closed, or no event loop runs
                self._loop = asyncio.get_running_loop()
                self._commits.post(Entry(event, self._clock(), noted=True), within_s=NOTE_WITHIN_S)
                return
        self._lose(event)

    async def note_refusal(self, event: Event) -> None:
        """See `Auditor.note_refusal`. Every event that comes here looks like theft."""
        if self._commits.waiting >= MAX_NOTES:
            self._lose(event)
            return
        try:
            self._loop = asyncio.get_running_loop()
            written = self._commits.submit(Entry(event, self._clock(), noted=True))
        except asyncio.QueueFull:
            self._lose(event)
            return
        with suppress(TimeoutError):  # a disk that hangs; the event may still be written
            await written  # a disk that refuses: the event was counted as lost

    def _lose(self, event: Event) -> None:
        """Count an event that finds no room."""
        self._log_writer.losses.add(event.action, at=self._clock(), cause="the queue was full or closed")
        if self._closed:  # no gap record will report it
            _log.error("an audit event is lost: it came after the log was closed", action=event.action.value)

    async def aclose(self) -> None:
        """Write the events that wait, and close the file. Losses that remain go to the process's own log."""
        if self._closed:
            return
        self._closed = True
        for task in (self._retrying, self._signing, self._checking):
            if task is not None:
                task.cancel()
        await self._commits.aclose()
        await asyncio.to_thread(self._log_writer.close)
        await self._keep_signed_head()

    def _commit(self, entries: Sequence[Entry]) -> list[Exception | None]:
        """Write a batch. Runs on the writer's thread."""
        outcomes = self._log_writer.commit(entries)
        follow = self._log_writer.due or (self._log_writer.unsigned and self._signing is None)
        if (follow or self._log_writer.signed is not self._kept) and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended without `aclose`: no task can try again
                self._loop.call_soon_threadsafe(self._follow_up)
        return outcomes

    def _follow_up(self) -> None:
        """Start the tasks that try again, sign and look at the file without a further event. Runs on the event loop."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        if self._log_writer.due and (self._retrying is None or self._retrying.done()):
            self._retrying = loop.create_task(self._retry())
        if self._signing is None:
            self._signing = loop.create_task(self._sign())
        if self._checking is None:
            self._checking = loop.create_task(self._check_file())

    async def _check_file(self) -> None:
        while True:
            await asyncio.sleep(CHECK_FILE_S)
            await self._commits.run(self._log_writer.check_file)

    async def _retry(self) -> None:
        while self._log_writer.due:
            await asyncio.sleep(self._retry_s)
            await self._commits.run(self._log_writer.report)

    async def _sign(self) -> None:
        """Keep the head of the last checkpoint, and write the next one in time, until every record is signed."""
        await self._keep_signed_head()
        while self._log_writer.unsigned:
            await asyncio.sleep(CHECKPOINT_WITHIN_S)
            await self._commits.run(lambda: self._log_writer.checkpoint(Moment.INTERVAL))
            await self._keep_signed_head()
        self._signing = None

    async def _keep_signed_head(self) -> None:
        head = self._log_writer.signed
        if self._keep_head is None or head is None or head is self._kept:
            self._kept = head
            return
        try:
            await self._keep_head(head)
        except UnavailableError as error:
            _log.warning("the audit log's head could not be kept in another place", error=str(error))
        else:
            self._kept = head


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_WITHIN_S:g} s"
    if isinstance(error, asyncio.QueueFull):
        return "too many events wait, or it is closed"
    return cause_of(error)
