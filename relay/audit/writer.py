"""What the log's thread does: turns events into records, and keeps the promises about the file.

What can't be written is counted, and told by the next record that can be. Checkpoints go in before more than
`EVERY` records have passed, and whenever the event loop's timer asks for one. A file that is large or old enough is
followed by another one, and files that are older than they need be are deleted.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import msgspec
import structlog

from relay.audit.chain import Link, seal
from relay.audit.checkpoints import EVERY, Moment, Signer, checkpoint_event
from relay.audit.files import delete_older, old_files
from relay.audit.logfile import LogFile
from relay.core.events import Action, Event, to_record

_log = structlog.get_logger("relay.audit")

_ROTATE_AGAIN_S = 60.0
"""After a change of files that failed: until then the old one is written on, and one line in the log says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What was lost: events by action, when the first happened (Unix seconds), and why the last one was."""

    counts: dict[str, int]
    since: float
    cause: str


class LostEvents:
    """Counts lost events by action. Bounded: there are no more entries than actions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._since = 0.0
        self._cause = ""
        self._ever: Counter[str] = Counter()

    def add(self, action: Action, *, at: float, cause: str) -> None:
        """Count one event of `action` that happened at `at` (Unix seconds)."""
        with self._lock:
            if not self._counts:
                self._since = at
            self._counts[action.value] += 1
            self._ever[action.value] += 1
            self._cause = cause

    def ever(self) -> dict[str, int]:
        """Return the events lost since the start by action, those that a gap record has told of included."""
        with self._lock:
            return dict(self._ever)

    def pending(self) -> Loss | None:
        """Return what no gap record has told of yet; once one has, pass it to `reported`."""
        with self._lock:
            if not self._counts:
                return None
            return Loss(counts=dict(self._counts), since=self._since, cause=self._cause)

    def reported(self, loss: Loss) -> None:
        """Forget `loss`, but not what was added since it was taken."""
        with self._lock:
            self._counts.subtract(loss.counts)
            self._counts += Counter()  # drops the entries that are zero


_CHECKPOINT = b'"action":"audit.checkpoint"'
# a quote inside a string is always escaped, so this can't match in what came from outside


class StdoutCopy:
    """Writes the log's lines, or its checkpoints alone, to a descriptor as well. For one thread at a time."""

    def __init__(self, *, checkpoints_only: bool, descriptor: int = 1) -> None:
        self._checkpoints_only = checkpoints_only
        self._descriptor = descriptor
        self._failing = False

    def write(self, lines: Sequence[tuple[bytes, Link]]) -> None:
        """StdoutCopy lines that are in the file now. Never raises."""
        data = b"".join(
            line + b"\n" for line, _ in lines if not self._checkpoints_only or _CHECKPOINT in line
        )
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            if not self._failing:
                _log.error("the audit log can't be copied to standard output", error=error.strerror)
            self._failing = True
        else:
            self._failing = False


class Sync(StrEnum):
    """When to wait for the disk (fdatasync), against a power cut."""

    NEVER = "never"
    CHECKPOINT = "checkpoint"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """How a log is kept. `signer` None: without checkpoints. Sizes in bytes, times in seconds; 0: never.

    `copy` gets the lines too, once they are in the file.
    """

    signer: Signer | None = None
    sync: Sync = Sync.NEVER
    rotate_bytes: int = 0
    rotate_s: float = 0
    keep_s: float = 0
    copy: StdoutCopy | None = None


class Entry(NamedTuple):
    """An event and when it came (Unix seconds). `noted`: nobody waits to hear whether it was written."""

    event: Event
    at: float
    noted: bool


class LogWriter:
    """Writes a log's records. Not thread-safe: one thread at a time."""

    def __init__(
        self, file: LogFile, path: Path, *, node: str, clock: Callable[[], float], options: LogOptions
    ) -> None:
        self.losses = LostEvents()
        self._file = file
        self._path = path
        self._node = node
        self._clock = clock
        self._options = options
        self._ids = _random_ids()
        self._failing = False
        self._rotate_after = 0.0
        self._unclean = options.signer is not None and not file.closed_cleanly
        self._due: Moment | None = Moment.OPENED if options.signer is not None else None
        self._signed_seq = file.head.seq
        self.signed: Link | None = None
        """The last checkpoint that was written: the head to keep elsewhere."""
        self._drop_old()

    @property
    def head(self) -> Link:
        """The place of the last record that is in the file."""
        return self._file.head

    @property
    def due(self) -> bool:
        """Whether something is to be written that no event brings with it: a gap record, or the first checkpoint."""
        return (
            self.losses.pending() is not None
            or self._file.unreadable is not None
            or self._unclean
            or self._due is not None
        )

    @property
    def unsigned(self) -> bool:
        """Whether records stand below the last checkpoint."""
        return self._options.signer is not None and self._file.head.seq > self._signed_seq

    def commit(self, entries: Sequence[Entry]) -> list[Exception | None]:
        """Write what is due, then `entries`. Never raises: each has its own outcome."""
        if entries:  # a last checkpoint goes where its records are
            self._rotate()
        loss = self.losses.pending()
        gap = self._gap(loss)
        before = [] if gap is None else [gap]
        count, error = self._append([*before, *entries])
        if gap is not None and count:
            count -= 1
            self._unclean = False
            if loss is not None:
                self.losses.reported(loss)
        for entry in entries[count:]:
            if entry.noted:
                self.losses.add(entry.event.action, at=entry.at, cause=cause_of(error))
        self._log_outcome(error)
        return [None] * count + [error] * (len(entries) - count)

    def report(self) -> None:
        """Write what is due, if something is."""
        if self.due:
            self.commit(())

    def checkpoint(self, moment: Moment) -> None:
        """Sign what was written since the last checkpoint, if something was."""
        if self._options.signer is not None and (self.unsigned or moment is Moment.CLOSED):
            self._due = moment
            self.commit(())

    def close(self) -> None:
        """Write what is still due, and close the file. What still can't be written goes to the process's own log."""
        self.report()
        if not self.losses.pending():
            self.checkpoint(Moment.CLOSED)
        if (loss := self.losses.pending()) is not None:
            _log.error("audit events are lost", path=str(self._path), lost=loss.counts, cause=loss.cause)
        self._file.close()

    def _append(self, entries: Sequence[Entry]) -> tuple[int, Exception | None]:
        """Write `entries`, with a checkpoint where one is due; returns how many of them are in the file."""
        moment = self._moment(len(entries))
        at = (
            1 if self._file.unreadable is not None else 0
        )  # nothing may come before what accounts for torn bytes
        try:
            lines = []
            head = self._file.head
            for number, entry in enumerate(entries):
                if moment is not None and number == at:
                    line, head = self._sealed_checkpoint(head, moment)
                    lines.append((line, head))
                line, head = self._seal(entry, head)
                lines.append((line, head))
            if moment is not None and at == len(entries):
                lines.append(self._sealed_checkpoint(head, moment))
            count, error = self._file.append(lines)
        except Exception as failure:  # noqa: BLE001  # an outcome like a full disk: counted and logged
            return 0, failure
        self._copy(lines[:count])
        signed = moment is not None and count > at
        if signed:
            self._signed(lines[at][1])
        if count and (
            self._options.sync is Sync.ALWAYS or (signed and self._options.sync is Sync.CHECKPOINT)
        ):
            try:
                self._file.sync()
            except OSError as failure:
                error = failure
                if self._options.sync is Sync.ALWAYS:  # nobody may be told that it is on the disk
                    return 0, failure
        return count - signed, error

    def _copy(self, lines: Sequence[tuple[bytes, Link]]) -> None:
        if self._options.copy is not None:
            self._options.copy.write(lines)

    def _moment(self, coming: int) -> Moment | None:
        """Return which checkpoint goes with the next batch."""
        if self._options.signer is None:
            return None
        if self._due is not None:
            return self._due
        return Moment.INTERVAL if self._file.head.seq - self._signed_seq + coming > EVERY - 1 else None

    def _signed(self, link: Link) -> None:
        self._due = None
        self._signed_seq = link.seq
        self.signed = link

    def _sealed_checkpoint(self, head: Link, moment: Moment) -> tuple[bytes, Link]:
        assert self._options.signer is not None
        now = self._clock()
        older = old_files(self._path)
        event = checkpoint_event(
            self._options.signer,
            head=str(head),
            at=_iso(now),
            moment=moment,
            oldest=older[0][0] if older else self._file.first or 1,
        )
        return seal(self._record(Entry(event, now, noted=False)), head)

    def _seal(self, entry: Entry, head: Link) -> tuple[bytes, Link]:
        try:
            return seal(self._record(entry), head)
        except Exception as error:  # noqa: BLE001  # whatever its details hold, the event must be recorded
            bare = msgspec.structs.replace(entry.event, relay={"unwritable": type(error).__name__})
            return seal(self._record(entry._replace(event=bare)), head)

    def _record(self, entry: Entry) -> dict[str, Any]:
        return to_record(entry.event, timestamp=_iso(entry.at), event_id=next(self._ids), node=self._node)

    def _gap(self, loss: Loss | None) -> Entry | None:
        """Return the gap record that is due: for lost events, torn bytes, an unclean end, or all of these."""
        unreadable = self._file.unreadable
        if loss is None and unreadable is None and not self._unclean:
            return None
        details: dict[str, Any] = {}
        if loss is not None:
            details |= {"lost": loss.counts, "since": _iso(loss.since), "cause": loss.cause}
        if unreadable is not None:
            details["unreadable"] = msgspec.structs.asdict(unreadable)
        if self._unclean:
            details["unclean_end"] = True
        return Entry(Event(action=Action.AUDIT_GAP, relay=details), self._clock(), noted=False)

    def _rotate(self) -> None:
        """Go on in another file if this one is large or old enough. If that fails, it is written on."""
        options, file, now = self._options, self._file, self._clock()
        # without checkpoints nothing could tell a second file from one whose beginning was cut off
        if options.signer is None or now < self._rotate_after or not file.rotatable:
            return
        if file.began is None:
            file.began = now
        large = 0 < options.rotate_bytes <= file.size
        if not large and not 0 < options.rotate_s <= now - file.began:
            return
        try:
            old = file.rotate(*(sealed := self._sealed_checkpoint(file.head, Moment.ROTATED)))
        except OSError as error:
            self._rotate_after = now + _ROTATE_AGAIN_S
            _log.error("no new audit file can be begun; the old one is written on", error=cause_of(error))
            return
        self._copy([sealed])
        self._signed(sealed[1])
        file.began = now
        _log.info("the audit log goes on in a new file", old=old.name)
        self._drop_old()

    def _drop_old(self) -> None:
        if not self._options.keep_s:
            return
        try:
            for old in delete_older(self._path, self._clock() - self._options.keep_s):
                _log.info("an old audit file was deleted, as audit.keep_days says", file=old.name)
        except OSError as error:
            _log.error("old audit files can't be deleted", error=cause_of(error))

    def _log_outcome(self, error: Exception | None) -> None:
        """Log when writing begins to fail and when it works again."""
        with suppress(OSError, ValueError):  # a standard error that is closed or full is no reason to fail
            if error is not None and not self._failing:
                _log.error("the audit log can't be written", path=str(self._path), error=cause_of(error))
            elif error is None and self._failing:
                _log.warning("the audit log is written again", path=str(self._path))
        self._failing = error is not None


def cause_of(error: Exception | None) -> str:
    """Say in a few words why a record could not be written."""
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return error.strerror or str(error)
    return type(error).__name__


def _random_ids() -> Iterator[str]:
    """Yield 128 random bits at a time, in hex, for ever.

    Drawn by the block: a draw is a system call for which the thread lets go of the interpreter, and to get that back
    from a busy event loop costs more than the record.
    """
    while True:
        block = token_hex(16 * 256)
        yield from (block[at : at + 32] for at in range(0, len(block), 32))


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
