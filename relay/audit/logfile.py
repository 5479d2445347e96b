"""The audit log's file: one writer, append only, always at a known place of its chain.

Nothing is ever cut off, not even the process's own half-written line after a full disk: a log with the
append-only attribute (`chattr +a`) works, and a program that follows the file never sees it shrink. A line
that could not be finished is accounted for by the next record instead, see `tail`.

No fsync: what `write` took is in the kernel and survives the death of this process. Only a power cut can
take the last moments away, and an fsync for each record would hold up every token for the disk.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from relay.audit.chain import Link, Unreadable
from relay.audit.tail import Tail, Torn, read_tail
from relay.core.errors import ConfigurationError


class LogFile:
    """An audit log that is open for writing, and locked. Not thread-safe: one thread at a time."""

    def __init__(self, file: int, tail: Tail) -> None:
        self._file = file
        self._torn = tail.torn
        self._ended = tail.ended
        self.head = tail.head or Link.before_first(secrets.token_hex(8))
        """The place of the last record that is in the file."""

    @classmethod
    def open(cls, path: Path) -> "LogFile":
        """Open the log at `path`, or begin one that only this user may read, and lock it.

        Raises:
            ConfigurationError: if it can't be written, is no audit log, or another process writes it.
        """
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error.strerror) from None
        try:
            kind = os.fstat(file).st_mode
            # a pipe could not be read back, so neither the chain nor a verification could go on from it
            if not stat.S_ISREG(kind) and not stat.S_ISCHR(kind):
                raise _unusable(path, "it is not a regular file")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(
                file, read_tail(file, path) if os.fstat(file).st_size else Tail(None, Torn(), ended=True)
            )
        except BlockingIOError:
            os.close(file)
            raise ConfigurationError(
                f"audit.path: {path} is being written by another process; "
                "each relay needs a file of its own, so stop the other one or name another file."
            ) from None
        except OSError as error:
            os.close(file)
            raise _unusable(path, error.strerror) from None
        except ConfigurationError:
            os.close(file)
            raise

    @property
    def unreadable(self) -> Unreadable | None:
        """What the next record must account for, None when the file ends with a record."""
        return self._torn.described() if self._torn.size else None

    def append(self, lines: Sequence[tuple[bytes, Link]]) -> tuple[int, OSError | None]:
        """Write `lines`, each sealed after the one before, the first after `head`.

        Returns how many are in the file now, and why not all of them. While `unreadable` is not None, the
        first must be the gap record that names it.
        """
        begin = b"" if self._ended else b"\n"
        data = begin + b"".join(line + b"\n" for line, _ in lines)
        written, error = self._write(data)
        # the newline that goes first ends either torn bytes, and then is one of them, or a whole record
        torn_from = 0 if self._torn.size else len(begin)
        position, count = len(begin), 0
        for line, link in lines:
            if written < position + len(line):
                break
            # a record is whole without its newline too; the next batch then adds it
            position += len(line) + 1
            count += 1
            self.head = link
        if count:
            self._torn, torn_from = Torn(), position
        self._torn.add(data[torn_from:written])
        if written:
            self._ended = data[written - 1 : written] == b"\n"
        return count, error

    def close(self) -> None:
        """Close the file, and so give up the lock."""
        os.close(self._file)

    def _write(self, data: bytes) -> tuple[int, OSError | None]:
        """Write as much of `data` as goes in."""
        written = 0
        try:
            state = os.fstat(self._file)
            if stat.S_ISREG(state.st_mode) and not state.st_nlink:
                raise OSError(errno.ENOENT, "the file was deleted, restart the relay to begin a new one")
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            return written, error
        return written, None


def _unusable(path: Path, why: str | None) -> ConfigurationError:
    return ConfigurationError(
        f"audit.path: {path} can't be used as the audit log ({why}). "
        "Name a file in a folder that this process may write to."
    )
