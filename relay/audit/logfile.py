"""The audit log's file: one writer, append only, and the head of the chain always known.

The relay never cuts anything off, so that a file with the append-only attribute (`chattr +a`) works, and a program that
follows the file never sees it shrink. A killed process, a full disk or a power cut can leave a torn line at the end.
The next record begins on a new line, follows the last intact record, and names the torn bytes by number and SHA-256
(`Unreadable`). They are part of the chain from then on.

Written bytes are in the kernel and survive the death of this process. Only a power cut can lose the last of them.
`sync` prevents that, and its caller decides how often to wait for the disk.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from relay.audit.chain import MAX_LINE, Link, Unreadable, unseal
from relay.audit.checkpoints import Moment
from relay.audit.files import clean_up, next_name, old_files, process_path, swap_in, swap_in_renamed
from relay.core.errors import ConfigurationError, MalformedError

MAX_END_BYTES = 8 << 20
"""Bytes that are searched for the last intact record: eight of the longest lines. No crash leaves more than that."""

_FIRST_BLOCK = 64 << 10
_LINE_BEGIN = b'{"@timestamp":"'


class LogInUseError(ConfigurationError):
    """Another process writes the log."""


class TornBytes:
    """Bytes at the end of a log that are no record, counted and hashed."""

    def __init__(self) -> None:
        self.size = 0
        self.ended = True
        """Whether the last byte is a newline, so that a record can follow."""
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Add `data`, the next bytes of the file."""
        if data:
            self.size += len(data)
            self.ended = data.endswith(b"\n")
            self._hash.update(data)

    def described(self) -> Unreadable:
        """Return these bytes as a gap record names them, with the newline that ends them."""
        if self.ended:
            return Unreadable(bytes=self.size, sha256=self._hash.hexdigest())
        ended = self._hash.copy()
        ended.update(b"\n")
        return Unreadable(bytes=self.size + 1, sha256=ended.hexdigest())


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log. `head` is None if it has no record; `ended` is False if its last byte is no newline.

    `closed`: its writer stopped in order, or the log is new.
    """

    head: Link | None
    torn: TornBytes
    ended: bool
    closed: bool

    @classmethod
    def of_nothing(cls) -> "LogEnd":
        """Return the end of a new log."""
        return cls(None, TornBytes(), ended=True, closed=True)


class LogFile:
    """An audit log that is open for writing, and locked. Not thread-safe."""

    def __init__(self, file: int, path: Path, end: LogEnd) -> None:
        self._file = file
        self._path = path
        self.closed_cleanly = end.closed
        """Whether the process that wrote the log before stopped in order."""
        self.size = os.fstat(file).st_size
        self.first, self.began = _first_record(file) if self.size else (None, None)
        """The first record in this file and its time (Unix seconds); None if there is none, or it can't be read."""
        self._torn = end.torn
        self._ended = end.ended
        self.head = end.head or Link.before_first(secrets.token_hex(8))
        """The link of the last record in the file."""

    @classmethod
    def open(cls, path: Path) -> "LogFile":
        """Open the log at `path`, or create one that only this user may read, and lock it.

        Raises:
            ConfigurationError: if it can't be written, is no audit log, or is written by another process.
        """
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error.strerror) from None
        try:
            kind = os.fstat(file).st_mode
            # a pipe can't be read back, so the chain could not be continued or verified
            if not stat.S_ISREG(kind) and not stat.S_ISCHR(kind):
                raise _unusable(path, "it is not a regular file")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(file, path):
                clean_up(path)
                return cls(file, path, read_end(file, path) if os.fstat(file).st_size else _end_before(path))
        except BlockingIOError:
            os.close(file)
            raise LogInUseError(
                f"audit.path: {path} is being written by another process; "
                "each relay needs a file of its own, so stop the other one or name another file."
            ) from None
        except OSError as error:
            os.close(file)
            raise _unusable(path, error.strerror) from None
        except ConfigurationError:
            os.close(file)
            raise
        os.close(file)  # its writer has rotated or deleted it since it was opened
        return cls.open(path)

    @classmethod
    def open_for_process(cls, path: Path) -> tuple["LogFile", Path, int]:
        """Open the first of the logs of processes beside `path` that no living process has. Return it with its number.

        Raises:
            ConfigurationError: see `open`.
        """
        for number in count(1):  # each number that is taken is a living process
            own = process_path(path, number)
            with suppress(LogInUseError):
                return cls.open(own), own, number
        raise AssertionError

    @property
    def unreadable(self) -> Unreadable | None:
        """The torn bytes that the next record must account for; None if the file ends with a record."""
        return self._torn.described() if self._torn.size else None

    def append(self, lines: Sequence[tuple[bytes, Link]]) -> tuple[int, OSError | None]:
        """Write `lines`, each sealed after the one before, and the first after `head`.

        Returns how many of them are in the file, and the error if that is not all. If `unreadable` is not None, the
        first line must be the gap record that names it.
        """
        begin = b"" if self._ended else b"\n"
        data = begin + b"".join(line + b"\n" for line, _ in lines)
        written, error = self._write(data)
        # the newline in front ends either torn bytes, and is one of them, or a whole record
        torn_from = 0 if self._torn.size else len(begin)
        position, count = len(begin), 0
        for line, link in lines:
            if written < position + len(line):
                break
            # a record is whole even without its newline, which the next batch adds
            position += len(line) + 1
            count += 1
            self.head = link
        if count:
            self._torn, torn_from = TornBytes(), position
        self._torn.add(data[torn_from:written])
        if written:
            self._ended = data[written - 1 : written] == b"\n"
            self.size += written
        if count and self.first is None:
            self.first = lines[0][1].seq
        return count, error

    def sync(self) -> None:
        """Wait until all that was written is on the disk.

        Raises:
            OSError: if it can't be written to the disk. It is then unknown what is on the disk.
        """
        if stat.S_ISREG(os.fstat(self._file).st_mode):
            os.fdatasync(self._file)

    @property
    def rotatable(self) -> bool:
        """Whether another file may follow: this one ends with a whole record."""
        return self.first is not None and self._ended and not self._torn.size

    @property
    def renamed(self) -> bool:
        """Whether another program has renamed this file, as logrotate does. A deleted file was not renamed."""
        own = os.fstat(self._file)
        if not stat.S_ISREG(own.st_mode) or not own.st_nlink:
            return False
        try:
            return not os.path.samestat(own, self._path.stat())
        except FileNotFoundError:
            return True
        except OSError:
            return False  # unknown; writing goes on

    def take_cut(self) -> int:
        """Return how many bytes another program has cut off since the last look, as logrotate's `copytruncate` does.

        `head` stays: the chain continues after the last record that was written. Torn bytes that are left at the end
        are `unreadable` from now on.

        Raises:
            OSError: if the file can't be read.
        """
        state = os.fstat(self._file)
        if not stat.S_ISREG(state.st_mode) or state.st_size >= self.size:
            return 0
        missing, self.size = self.size - state.st_size, state.st_size
        end = LogEnd.of_nothing()
        if self.size:
            with suppress(ConfigurationError):  # of a long log, nothing that can be read is left
                end = read_end(self._file, self._path)
        self._torn, self._ended = end.torn, end.ended
        self.first, self.began = _first_record(self._file) if self.size else (None, None)
        return missing

    def rotate(self, line: bytes, link: Link) -> Path:
        """Continue in a new file that begins with `line`, sealed after `head`. Return the name of the old file.

        Raises:
            OSError: if it can't be created; the old file is then still in use.
        """
        renamed = self.renamed
        assert self.first is not None  # `rotatable`
        beside, data = next_name(self._path), line + b"\n"
        file = os.open(beside, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            written = 0
            while written < len(data):
                written += os.write(file, data[written:])
            os.fdatasync(self._file)  # the end of the old file must be on the disk before the new file
            os.fdatasync(file)
            old = (
                swap_in_renamed(self._path, self.first, self._file)
                if renamed
                else swap_in(self._path, self.first)
            )
        except OSError:
            os.close(file)
            beside.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self.size = file, len(data)
        self.head, self.first, self.began = link, link.seq, None
        return old

    def close(self) -> None:
        """Close the file, which releases the lock."""
        os.close(self._file)

    def _write(self, data: bytes) -> tuple[int, OSError | None]:
        """Write as much of `data` as possible. Return the number of bytes, and the error if it is not all."""
        written = 0
        try:
            state = os.fstat(self._file)
            if stat.S_ISREG(state.st_mode) and not state.st_nlink:
                raise OSError(errno.ENOENT, "the file was deleted; restart the relay to create a new one")
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            return written, error
        return written, None


def _has_name(file: int, path: Path) -> bool:
    """Tell whether the file at `path` is the one that the descriptor `file` is open for."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


def _end_before(path: Path) -> LogEnd:
    """Return the end of the newest older file, because an empty file continues its chain."""
    older = old_files(path)
    if not older:
        return LogEnd.of_nothing()
    file = os.open(older[-1][1], os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = read_end(file, older[-1][1])
    finally:
        os.close(file)
    return LogEnd(end.head, TornBytes(), ended=True, closed=end.closed)


def _first_record(file: int) -> tuple[int | None, float | None]:
    try:
        sealed = unseal(os.pread(file, MAX_LINE, 0).partition(b"\n")[0])
        return sealed.link.seq, datetime.fromisoformat(sealed.at).timestamp()
    except (MalformedError, ValueError):
        return None, None


def _unusable(path: Path, why: str | None) -> ConfigurationError:
    return ConfigurationError(
        f"audit.path: {path} can't be used as the audit log ({why}). "
        "Name a file in a folder that this process may write to."
    )


def read_end(file: int, path: Path) -> LogEnd:
    """Read the end of the log that the descriptor `file` is open for. `path` is for error texts.

    Raises:
        ConfigurationError: if the file is no audit log.
        OSError: if it can't be read.
    """
    size = os.fstat(file).st_size
    block = _FIRST_BLOCK
    while True:
        start = max(0, size - block)
        data = _read(file, start, size)
        found = _last_record(data, whole=start == 0)
        if found is not None:
            return found
        if start == 0 and _may_be_torn(data):
            torn = TornBytes()
            torn.add(data)
            return LogEnd(None, torn, torn.ended, closed=False)
        if start == 0 or block >= MAX_END_BYTES:
            raise ConfigurationError(
                f"audit.path: {path} is no audit log, or its end is damaged (no record was found in its last "
                f"{len(data)} bytes). Name another file, or move this one away and keep it."
            )
        block *= 2


def _read(file: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(file, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _last_record(data: bytes, *, whole: bool) -> LogEnd | None:
    """Find the last intact record in `data`, which is the end of the file, or the whole file if `whole`."""
    end = len(data)
    while end > 0:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and not whole:
            return None  # the beginning of this line is before `data`
        try:
            sealed = unseal(data[begin:end])
        except MalformedError:
            pass
        else:
            if sealed.intact:
                torn = TornBytes()
                torn.add(data[end:])
                checkpoint = sealed.checkpoint
                closed = checkpoint is not None and checkpoint.moment is Moment.CLOSED and not torn.size
                return LogEnd(sealed.link, torn, data.endswith(b"\n"), closed)
        end = begin
    return None


def _may_be_torn(data: bytes) -> bool:
    """Return whether a process that died while it wrote its first record can have left `data`."""
    return all(
        line.startswith(_LINE_BEGIN) or (line and _LINE_BEGIN.startswith(line))
        for line in data.removesuffix(b"\n").split(b"\n")
    )
