"""The audit log as JSON lines in a file, hash-chained.

The event loop only queues an event and its time. Turning it into a record, hashing and writing happen on
one thread, many events to a write (`GroupCommit`): during a burst of connections a write each would be a
thousand system calls a second, and on the loop it would hold up prices.

What can't be written is never dropped in silence. `record` raises, so that its caller gives nothing away.
What came by `note` is counted, and an `audit.gap` record with the counts is the next thing written, before
any other event; while nothing else comes, a task tries again by itself.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import structlog

from relay.audit.chain import Link, seal
from relay.audit.logfile import LogFile
from relay.audit.losses import Loss, Losses
from relay.batching import GroupCommit
from relay.core.errors import Reason, UnavailableError
from relay.core.events import Action, Event, to_record

MAX_NOTES = 50_000
"""Notes that may wait: some seconds of writing, and 60 MB. A longer queue would only hide a dead disk."""

NOTE_WITHIN_S = 0.05
"""How long a note may wait for others. A write for each would wake this thread for each, and two threads that
want the interpreter cost a connection more than its records do."""

_MAX_WAITING = MAX_NOTES + 10_000
"""Room that a flood of notes leaves for `record`, or refused connections could stop the issuing of tokens."""

_ANSWER_WITHIN_S = 5.0
"""How long `record` waits: a disk that hangs must become a 503. Long enough for a queue that a burst made."""

_log = structlog.get_logger("relay.audit")


@dataclass(frozen=True, slots=True)
class _Entry:
    event: Event
    at: float
    noted: bool


class JsonlAuditor:
    """An `Auditor` that writes a file. Create it with `open`, end it with `aclose`."""

    def __init__(
        self, file: LogFile, path: Path, *, node: str, clock: Callable[[], float], retry_s: float
    ) -> None:
        self._file = file
        self._path = path
        self.node = node
        self._clock = clock
        self._retry_s = retry_s
        self._losses = Losses()
        self._failing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._healing: asyncio.Task[None] | None = None
        self._closed = False
        self._writer: GroupCommit[_Entry, Exception | None] = GroupCommit(
            self._commit, name="relay-audit", max_waiting=_MAX_WAITING
        )

    @classmethod
    def open(
        cls, path: Path, *, node: str, clock: Callable[[], float] = time.time, retry_s: float = 1.0
    ) -> "JsonlAuditor":
        """Open the log at `path` and go on with its chain, or begin a new one.

        `node` names this relay process in each record, `clock` gives Unix seconds, and `retry_s` says how
        often a failed write is tried again while no new event comes.

        Raises:
            ConfigurationError: if the file can't be written, is no audit log, or another process writes it.
        """
        file = LogFile.open(path)
        auditor = cls(file, path, node=node, clock=clock, retry_s=retry_s)
        if file.unreadable is not None:
            _log.warning("the audit log ends with a torn line", path=str(path), bytes=file.unreadable.bytes)
            auditor._commit(())
        return auditor

    @property
    def lag(self) -> int:
        """Events that are not in the file yet."""
        return self._writer.waiting

    @property
    def lost(self) -> int:
        """Events that could not be recorded since the log was opened."""
        return self._losses.total

    @property
    def head(self) -> Link:
        """The place of the last record that is in the file. Kept elsewhere, it proves the log's end."""
        return self._file.head

    async def record(self, event: Event) -> None:
        """See `Auditor.record`. An event whose caller stopped waiting may still be written."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                error = await self._submit(event, noted=False)
        except (TimeoutError, asyncio.QueueFull) as busy:
            error = busy
        if error is not None:
            raise UnavailableError(
                Reason.AUDIT_UNAVAILABLE, f"The audit log could not be written: {_why(error)}."
            ) from None

    def note(self, event: Event) -> None:
        """See `Auditor.note`."""
        if self._writer.waiting < MAX_NOTES:
            with suppress(asyncio.QueueFull, RuntimeError):  # closed, or no event loop runs here
                self._submit(event, noted=True)
                return
        self._losses.add(event.action, at=self._clock(), cause="the queue was full or closed")
        if self._closed:  # no gap record can tell of it any more
            _log.error("an audit event is lost: it came after the log was closed", action=event.action.value)

    async def aclose(self) -> None:
        """Write what waits and close the file. What still can't be written goes to the service's own log."""
        if self._closed:
            return
        self._closed = True
        if self._healing is not None:
            self._healing.cancel()
        await self._writer.aclose()
        await asyncio.to_thread(self._report)
        if (loss := self._losses.pending()) is not None:
            _log.error("audit events are lost", path=str(self._path), lost=loss.counts, cause=loss.cause)
        self._file.close()

    def _submit(self, event: Event, *, noted: bool) -> asyncio.Future[Exception | None]:
        self._loop = asyncio.get_running_loop()
        return self._writer.submit(
            _Entry(event, self._clock(), noted), within_s=NOTE_WITHIN_S if noted else 0
        )

    # What follows runs on the writer's thread.

    def _commit(self, entries: Sequence[_Entry]) -> list[Exception | None]:
        """Write the gap record, if one is due, then `entries`. Never raises: each has its own outcome."""
        loss = self._losses.pending()
        gap = self._gap(loss)
        count, error = self._append(entries if gap is None else [gap, *entries])
        if gap is not None and count:
            count -= 1
            if loss is not None:
                self._losses.reported(loss)
        for entry in entries[count:]:
            if entry.noted:
                self._losses.add(entry.event.action, at=entry.at, cause=_why(error))
        self._tell(error)
        return [None] * count + [error] * (len(entries) - count)

    def _append(self, entries: Sequence[_Entry]) -> tuple[int, Exception | None]:
        try:
            lines = []
            head = self._file.head
            for entry in entries:
                line, head = self._seal(entry, head)
                lines.append((line, head))
            return self._file.append(lines)
        except Exception as error:  # noqa: BLE001  # an outcome like a full disk: counted and logged
            return 0, error

    def _seal(self, entry: _Entry, head: Link) -> tuple[bytes, Link]:
        try:
            return seal(self._record(entry), head)
        except Exception as error:  # noqa: BLE001  # whatever its details hold, the event must be recorded
            bare = replace(entry.event, relay={"unwritable": type(error).__name__})
            return seal(self._record(replace(entry, event=bare)), head)

    def _record(self, entry: _Entry) -> dict[str, Any]:
        return to_record(entry.event, timestamp=_iso(entry.at), event_id=token_hex(16), node=self.node)

    def _gap(self, loss: Loss | None) -> _Entry | None:
        """Return the gap record that is due, if one is: for lost events, for torn bytes, or for both."""
        unreadable = self._file.unreadable
        if loss is None and unreadable is None:
            return None
        details: dict[str, Any] = {}
        if loss is not None:
            details |= {"lost": loss.counts, "since": _iso(loss.since), "cause": loss.cause}
        if unreadable is not None:
            details["unreadable"] = msgspec.structs.asdict(unreadable)
        return _Entry(Event(action=Action.AUDIT_GAP, relay=details), self._clock(), noted=False)

    def _report(self) -> None:
        """Write the gap record alone, if one is due."""
        if self._gap_due:
            self._commit(())

    @property
    def _gap_due(self) -> bool:
        return self._losses.pending() is not None or self._file.unreadable is not None

    def _tell(self, error: Exception | None) -> None:
        """Log when writing begins to fail and when it works again; while a gap record is due, try again."""
        with suppress(OSError, ValueError):  # a standard error that is closed or full is no reason to fail
            if error is not None and not self._failing:
                _log.error("the audit log can't be written", path=str(self._path), error=_why(error))
            elif error is None and self._failing:
                _log.warning("the audit log is written again", path=str(self._path))
        self._failing = error is not None
        if self._gap_due and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended without `aclose`: nobody can try again
                self._loop.call_soon_threadsafe(self._heal_soon)

    # On the event loop again.

    def _heal_soon(self) -> None:
        if not self._closed and (self._healing is None or self._healing.done()):
            self._healing = asyncio.get_running_loop().create_task(self._heal())

    async def _heal(self) -> None:
        while self._gap_due:
            await asyncio.sleep(self._retry_s)
            await self._writer.run(self._report)


def _why(error: Exception | None) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_WITHIN_S:g} s"
    if isinstance(error, asyncio.QueueFull):
        return "too many events wait, or it is closed"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return type(error).__name__


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
