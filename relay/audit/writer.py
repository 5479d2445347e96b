"""The work of the log's thread: it turns events into records, and rotates and deletes files.

Events that can't be written are counted, and the next record reports them. A checkpoint is written at the latest after
`EVERY` records, and whenever the event loop's timer asks for one.
"""

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from relay.audit.chain import Link, seal
from relay.audit.checkpoints import EVERY, Moment, Signer, checkpoint_event
from relay.audit.files import delete_ended, delete_older, old_files
from relay.audit.logfile import LogFile
from relay.core.clock_floor import ClockFloor
from relay.core.events import Action, Event, to_record
from relay.random_ids import random_ids

_log = structlog.get_logger("relay.audit")

_ROTATE_AGAIN_S = 60.0
"""Seconds until a failed rotation is tried again. The writer stays with the old file, and a log line says why."""
_HINT = (
    "leave rotation to audit.rotate_mb and audit.rotate_hours, or remove the log from logrotate's settings"
)
_CUT_HINT = (
    "do not use copytruncate: remove the log from logrotate's settings, and keep what logrotate copied, because "
    "the records are only there now"
)
_DELETE_AFTER_S = 3600.0
"""Seconds for which the clock must be past a file's end before the file is deleted: see `relay.core.clock_floor`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Lost events by action, when the first one happened (Unix seconds), and why the last one was lost."""

    counts: dict[str, int]
    since: float
    cause: str


class LostEvents:
    """Counts events that could not be recorded, until a gap record has reported them. It has an entry for each action.

    The event loop counts those that find the queue full, and the writer's thread those that the disk refuses; hence
    the lock.
    """

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
        """Return all events lost since the start, by action."""
        with self._lock:
            return dict(self._ever)

    def pending(self) -> Loss | None:
        """Return the losses that no gap record has reported yet. Pass them to `reported` when one has."""
        with self._lock:
            if not self._counts:
                return None
            return Loss(counts=dict(self._counts), since=self._since, cause=self._cause)

    def reported(self, loss: Loss) -> None:
        """Subtract `loss`, and keep the events that were added after `pending` returned it."""
        with self._lock:
            self._counts.subtract(loss.counts)
            self._counts += Counter()  # removes the entries that are zero


_CHECKPOINT = b'"action":"audit.checkpoint"'
# no client's text can match this, because a quote inside a string is always escaped


class StdoutCopy:
    """Copies the log's lines, or only its checkpoints, to standard output, for platforms that collect it.

    The file stays the log: `relay audit` reads it, gaps are about it, and a token needs a record in it. If the reader
    of the copy has gone, the process's own log says so, and the relay continues. A reader that stops reading blocks
    the log's thread, as a hanging disk does, and with it the issuing of tokens.

    A checkpoint is a signed head. If nobody can change the copied checkpoints, they alone prove that the file is whole.
    Not thread-safe.
    """

    def __init__(self, *, checkpoints_only: bool, descriptor: int = 1) -> None:
        self._checkpoints_only = checkpoints_only
        self._descriptor = descriptor
        self._failing = False

    def write(self, lines: Sequence[tuple[bytes, Link]]) -> None:
        """Copy lines that are in the file. Never raises."""
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
    """How a log is written. Sizes in bytes, times in seconds; 0: never. Without a `signer` it has no checkpoints.

    `copy` gets each line after it is in the file.
    """

    signer: Signer | None = None
    sync: Sync = Sync.NEVER
    rotate_bytes: int = 0
    rotate_s: float = 0
    keep_s: float = 0
    copy: StdoutCopy | None = None


class Entry(NamedTuple):
    """An event and its time (Unix seconds). `noted`: no caller waits for the outcome."""

    event: Event
    at: float
    noted: bool


class LogWriter:
    """Writes a log's records. Not thread-safe: one thread at a time."""

    def __init__(
        self,
        file: LogFile,
        path: Path,
        *,
        beside: Path | None = None,
        node: str,
        clock: Callable[[], float],
        steady: Callable[[], float],
        options: LogOptions,
    ) -> None:
        self.losses = LostEvents()
        self._file = file
        self._path = path
        self._beside = beside
        """The log that several processes write, each beside it: this one also deletes old files of those that ended."""
        self._node = node
        self._clock = clock
        self._steady = steady
        self._floor = ClockFloor(_DELETE_AFTER_S)
        self._must_delete = bool(options.keep_s)
        self._options = options
        self._ids = random_ids()
        self._failing = False
        self._rotate_after = steady()
        self._unclean = options.signer is not None and not file.closed_cleanly
        self._cut = 0
        """Bytes that another program cut off, until a gap record has named them."""
        self._due: Moment | None = Moment.OPENED if options.signer is not None else None
        self.opened = file.head
        self._signed_seq = file.head.seq
        self.signed: Link | None = None
        """The link of the last checkpoint: the head to keep in another place."""

    @property
    def head(self) -> Link:
        """The link of the last record in the file."""
        return self._file.head

    @property
    def due(self) -> bool:
        """Whether a gap record or the first checkpoint must be written, even if no event comes."""
        return (
            self.losses.pending() is not None
            or self._file.unreadable is not None
            or self._unclean
            or self._cut > 0
            or self._due is not None
        )

    @property
    def unsigned(self) -> bool:
        """Whether there are records after the last checkpoint."""
        return self._options.signer is not None and self._file.head.seq > self._signed_seq

    def commit(self, entries: Sequence[Entry]) -> list[Exception | None]:
        """Write what is due, then `entries`. Never raises; returns the outcome of each entry."""
        self._notice_cut()
        if entries or self._file.renamed:  # otherwise a last checkpoint stays in the file of its records
            self._rotate()
        if entries and self._must_delete:
            self._delete_old()
        loss = self.losses.pending()
        gap = self._gap(loss)
        before = [] if gap is None else [gap]
        count, error = self._append([*before, *entries])
        if gap is not None and count:
            count -= 1
            self._unclean = False
            self._cut = 0
            if loss is not None:
                self.losses.reported(loss)
        for entry in entries[count:]:
            if entry.noted:
                self.losses.add(entry.event.action, at=entry.at, cause=cause_of(error))
        self._log_outcome(error)
        return [None] * count + [error] * (len(entries) - count)

    def report(self) -> None:
        """Write what is due, if there is anything."""
        if self.due:
            self.commit(())

    def check_file(self) -> None:
        """Look whether another program has renamed or cut the file, and write what is due then."""
        self._notice_cut()
        if self.due or self._file.renamed:
            self.commit(())

    def checkpoint(self, moment: Moment) -> None:
        """Write a checkpoint if there are records after the last one."""
        if self._options.signer is not None and (self.unsigned or moment is Moment.CLOSED):
            self._due = moment
            self.commit(())

    def close(self) -> None:
        """Write what is still due, and close the file. Losses that remain go to the process's own log."""
        self.report()
        if not self.losses.pending():
            self.checkpoint(Moment.CLOSED)
        if (loss := self.losses.pending()) is not None:
            _log.error("audit events are lost", path=str(self._path), lost=loss.counts, cause=loss.cause)
        self._file.close()

    def _append(self, entries: Sequence[Entry]) -> tuple[int, Exception | None]:
        """Write `entries`, and a checkpoint if one is due. Return how many entries are in the file."""
        moment = self._moment(len(entries))
        # the gap record that accounts for torn or missing bytes must come first
        at = 1 if self._file.unreadable is not None or self._cut else 0
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
        except Exception as failure:  # noqa: BLE001  # as a full disk: counted and logged
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
                if self._options.sync is Sync.ALWAYS:  # no caller may be told that its record is on the disk
                    return 0, failure
        return count - signed, error

    def _copy(self, lines: Sequence[tuple[bytes, Link]]) -> None:
        if self._options.copy is not None:
            self._options.copy.write(lines)

    def _moment(self, new: int) -> Moment | None:
        """Return the moment of the checkpoint that the next batch needs, or None."""
        if self._options.signer is None:
            return None
        if self._due is not None:
            return self._due
        return Moment.INTERVAL if self._file.head.seq - self._signed_seq + new > EVERY - 1 else None

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
        except Exception as error:  # noqa: BLE001  # the event must be recorded, without the details that can't be written
            unwritable = {"unwritable": type(error).__name__}
            bare = msgspec.structs.replace(entry.event, relay=unwritable, more=None)
            return seal(self._record(entry._replace(event=bare)), head)

    def _record(self, entry: Entry) -> dict[str, Any]:
        return to_record(
            entry.event, timestamp=_iso(entry.at), event_id=next(self._ids).hex(), node=self._node
        )

    def _gap(self, loss: Loss | None) -> Entry | None:
        """Return the gap record that is due, for lost events, torn bytes or an unclean end."""
        unreadable = self._file.unreadable
        if loss is None and unreadable is None and not self._unclean and not self._cut:
            return None
        details: dict[str, Any] = {}
        if loss is not None:
            details |= {"lost": loss.counts, "since": _iso(loss.since), "cause": loss.cause}
        if unreadable is not None:
            details["unreadable"] = msgspec.structs.asdict(unreadable)
        if self._unclean:
            details["unclean_end"] = True
        if self._cut:
            details["cut"] = self._cut
        return Entry(Event(action=Action.AUDIT_GAP, relay=details), self._clock(), noted=False)

    def _notice_cut(self) -> None:
        """Notice that another program cut the file off. The next record says so, and a checkpoint signs it."""
        try:
            missing = self._file.take_cut()
        except OSError as error:  # writing fails as well, and says so
            _log.error("the audit log can't be read", error=cause_of(error))
            return
        if not missing:
            return
        self._cut += missing
        if self._options.signer is not None:
            self._due = self._due or Moment.INTERVAL
        with suppress(OSError, ValueError):  # see `_log_outcome`
            _log.error(
                "another program cut the audit log off; its records are missing",
                path=str(self._path),
                bytes=missing,
                last_record=self._file.head.seq,
                hint=_CUT_HINT,
            )

    def _rotate(self) -> None:
        """Start the next file if this one is large or old enough, or was renamed. If that fails, stay with this one."""
        options, file, now = self._options, self._file, self._clock()
        # only a checkpoint shows that a second file is not one whose beginning was cut off
        if options.signer is None or self._steady() < self._rotate_after or not file.rotatable:
            return
        if file.began is None:
            file.began = now
        renamed, large = file.renamed, 0 < options.rotate_bytes <= file.size
        if not renamed and not large and not 0 < options.rotate_s <= now - file.began:
            return
        try:
            old = file.rotate(*(sealed := self._sealed_checkpoint(file.head, Moment.ROTATED)))
        except OSError as error:
            self._rotate_after = self._steady() + _ROTATE_AGAIN_S
            _log.error("no new audit file can be created; the old one is still used", error=cause_of(error))
            return
        self._copy([sealed])
        self._signed(sealed[1])
        file.began = now
        if renamed:
            _log.warning(
                "another program renamed the audit log; it continues in a new file", old=old.name, hint=_HINT
            )
        else:
            _log.info("the audit log continues in a new file", old=old.name)
        self._must_delete = bool(self._options.keep_s)

    def _delete_old(self) -> None:
        """Delete old files, when the clock was late enough for `_DELETE_AFTER_S`: one wrong reading deletes no file."""
        floor = self._floor.read(self._clock(), self._steady())
        if floor == -math.inf:
            return
        self._must_delete = False
        try:
            before = floor - self._options.keep_s
            deleted = delete_older(self._path, before)
            if self._beside is not None:
                deleted += delete_ended(self._beside, before)
            for old in deleted:
                _log.info("an old audit file was deleted, as audit.keep_days says", file=old.name)
        except OSError as error:
            _log.error("old audit files can't be deleted", error=cause_of(error))

    def _log_outcome(self, error: Exception | None) -> None:
        """Log the moment when writing starts to fail, and the moment when it works again."""
        with suppress(OSError, ValueError):  # standard error is closed or full: no reason to fail
            if error is not None and not self._failing:
                _log.error("the audit log can't be written", path=str(self._path), error=cause_of(error))
            elif error is None and self._failing:
                _log.warning("the audit log is written again", path=str(self._path))
        self._failing = error is not None


def cause_of(error: Exception | None) -> str:
    """Return in a few words why a record could not be written."""
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return error.strerror or str(error)
    return type(error).__name__


def _iso(at: float) -> str:
    second, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    return f"{_iso_second(second)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=16)  # the records of a batch are of one second or two, and each takes 4 µs
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
