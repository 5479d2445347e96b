"""Where an existing audit log goes on: its last intact record, and whatever stands after that.

A process that is killed, a full disk or a power cut can leave a torn line at the end. It is evidence, so
nothing of it is overwritten or cut off: the next record goes on a fresh line, follows the last intact
record and names the bytes between the two by number and SHA-256 (`Unreadable`), so that they are part of
the chain from then on.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from relay.audit.chain import Link, Unreadable, unseal
from relay.audit.checkpoints import Moment
from relay.core.errors import ConfigurationError, MalformedError

MAX_TAIL = 8 << 20
"""Bytes searched for the last intact record: eight of the longest lines. No crash leaves more than that."""

_FIRST_BLOCK = 64 << 10
_LINE_BEGIN = b'{"@timestamp":"'


class Torn:
    """Bytes at the end of a log that are no record, counted and hashed as they come."""

    def __init__(self) -> None:
        self.size = 0
        self.ended = True
        """Whether the last byte is a newline, so that a record can follow."""
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take in `data`, which stands in the file after what came before."""
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
class Tail:
    """The end of a log. `head` is None if it has no record, `ended` False if the last byte is no newline.

    `closed`: its writer stopped in order, or it has never had one.
    """

    head: Link | None
    torn: Torn
    ended: bool
    closed: bool

    @classmethod
    def of_nothing(cls) -> "Tail":
        """Return the end of a log that has not begun."""
        return cls(None, Torn(), ended=True, closed=True)


def read_tail(file: int, path: Path) -> Tail:
    """Read the end of the log behind the descriptor `file`; `path` is for the message.

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
            torn = Torn()
            torn.add(data)
            return Tail(None, torn, torn.ended, closed=False)
        if start == 0 or block >= MAX_TAIL:
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


def _last_record(data: bytes, *, whole: bool) -> Tail | None:
    """Look for the last intact record in `data`, the end of the file, or all of it if `whole`."""
    end = len(data)
    while end > 0:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and not whole:
            return None  # this line's beginning lies before `data`
        try:
            sealed = unseal(data[begin:end])
        except MalformedError:
            pass
        else:
            if sealed.intact:
                torn = Torn()
                torn.add(data[end:])
                note = sealed.checkpoint
                closed = note is not None and note.moment is Moment.CLOSED and not torn.size
                return Tail(sealed.link, torn, data.endswith(b"\n"), closed)
        end = begin
    return None


def _may_be_torn(data: bytes) -> bool:
    """Tell whether all there is can be what a process left that died while it wrote its first record."""
    return all(
        line.startswith(_LINE_BEGIN) or (line and _LINE_BEGIN.startswith(line))
        for line in data.removesuffix(b"\n").split(b"\n")
    )
