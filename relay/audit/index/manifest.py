"""The list of an index's parts, and the folder that they are in.

Each part is listed with the SHA-256 of each of its files, and with that of the bytes of the log that it was made from.
The list has a SHA-256 too. Damage is found by them. Somebody who can write into the folder can write other sums:
`relay audit verify --index` makes the index again and compares.
"""

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from relay.core.errors import ConfigurationError

VERSION = 9
"""Of the rows and of this list. Another one makes the index again."""

_NUMBER = re.compile(r"-[0-9]{12}\Z")
"""What the name of an older file has after that of its chain."""
_NAME = "manifest.json"
_VERIFIED = "verified.json"
ALL = "all"
"""The one sheet of a small part."""
LOCK = ".lock"
"""The file that the one who changes the index has locked."""
_BLOCK = 256 << 10
"""Bytes that are read at once: they stay in the cache of a core while they are hashed."""


class State(msgspec.Struct, frozen=True):
    """What tells that a file is as it was: its place on the disk, its size, and the times of its last changes."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, file: int) -> "State":
        """Return the state of the file that the descriptor `file` is open for."""
        found = os.fstat(file)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Summary(msgspec.Struct, frozen=True):
    """What rows say together, so that a question about all of them need not read them.

    `earliest` and `latest` are the lowest and the highest time of a record. `seqs` has the highest number of each
    chain, `lacking` the number of records that say that something is missing, and `counts` for each action and endpoint
    the number of records and the place of the first one; None: there are too many, as in a forged log.
    """

    records: int
    bad: int
    earliest: str
    latest: str
    seqs: dict[str, int]
    lacking: int
    counts: list[tuple[str, str, int, int]] | None


class Part(msgspec.Struct, frozen=True):
    """One part: the rows of the bytes from `begin` to `end` of a file of the log.

    `seen_ns` is the time of the last look at the file, by the clock of the file system. `sheets` has the SHA-256 of
    each of the part's files. A small part has one file with all columns, `ALL`, instead of a file for each sheet.
    """

    log: str
    state: State
    seen_ns: int
    begin: int
    end: int
    log_sha256: str
    name: str
    sheets: dict[str, str]
    summary: Summary

    @property
    def is_small(self) -> bool:
        """Tell whether all rows and columns are in one file."""
        return ALL in self.sheets

    def path(self, folder: Path, sheet: str) -> Path:
        """Return the file of a sheet."""
        return folder / f"{self.name}.{sheet}.parquet"


class _Manifest(msgspec.Struct, frozen=True):
    version: int
    duckdb: str
    parts: list[Part]


def folder_of(newest: Path) -> Path:
    """Return the folder of the index of a log, whose newest file is at `newest`."""
    newest = newest.absolute()
    return newest.with_name(f"{_NUMBER.sub('', newest.stem).partition('.')[0]}-index")


def is_complete(file: Path) -> bool:
    """Tell whether the relay does not write to a file of the log any more: see `relay.audit.files`."""
    return _NUMBER.search(file.stem) is not None


def open_folder(path: Path) -> None:
    """Make the folder of an index if there is none, and check who can write into it.

    Raises:
        ConfigurationError: if others could have written into it.
        OSError: if it can't be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(
            f"{path}: the index of the audit log is a folder, and this is none. Move it away."
        )
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path}: the index belongs to another user (uid {found.st_uid}), who can write any answer into it. "
            "Remove the folder, or ask as that user."
        )
    if found.st_mode & 0o077:
        raise ConfigurationError(
            f"{path}: others may use the index (mode {stat.S_IMODE(found.st_mode):o}), and could have written any "
            "answer into it. Remove the folder; the next question makes it again."
        )


def is_changed_now(folder: Path) -> bool:
    """Tell whether somebody is bringing the index in a folder up to date."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read(folder: Path, duckdb: str) -> list[Part]:
    """Return the parts that the folder's list names. A list that is missing, damaged or of another DuckDB has none.

    Parts have hashes of names, which another release of DuckDB may compute in another way.
    """
    try:
        sum_, _, body = (folder / _NAME).read_bytes().partition(b"\n")
        if sum_.decode() != hashlib.sha256(body).hexdigest():
            return []
        manifest = msgspec.json.decode(body, type=_Manifest)
    except (OSError, ValueError):
        return []
    return manifest.parts if (manifest.version, manifest.duckdb) == (VERSION, duckdb) else []


def write(folder: Path, duckdb: str, parts: list[Part]) -> None:
    """Replace the list.

    Raises:
        OSError: if it can't be written.
    """
    body = msgspec.json.encode(_Manifest(VERSION, duckdb, parts))
    with replacing(folder / _NAME) as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


class Verified(msgspec.Struct, frozen=True):
    """What `relay audit verify` found when it last checked the whole log, and when."""

    at: str
    verdict: str


def read_verified(folder: Path) -> Verified | None:
    """Return when the log was last verified. None: nothing says so."""
    try:
        return msgspec.json.decode((folder / _VERIFIED).read_bytes(), type=Verified)
    except (OSError, ValueError):
        return None


def write_verified(folder: Path, verified: Verified) -> None:
    """Keep when the log was verified, if there is an index of this user.

    A folder that is made here would belong to the user who verifies, and be refused to the one who asks.

    Raises:
        OSError: if it can't be written.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(folder.lstat().st_mode) and folder.lstat().st_uid == os.geteuid():
            with replacing(folder / _VERIFIED) as file:
                file.write(msgspec.json.encode(verified))


class replacing:  # noqa: N801  # used like a function
    """Write a file aside, and give it its name when it is on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.new")

    def __enter__(self) -> BinaryIO:
        self._file = self._aside.open("wb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if kind is None:
            self._aside.replace(self._path)
        else:
            self._aside.unlink(missing_ok=True)


def sha256_of(file: int) -> str:
    """Return the SHA-256 of an open file."""
    return sha256_of_range(file, 0, os.fstat(file).st_size)


def sha256_of_range(file: int, begin: int, end: int) -> str:
    """Return the SHA-256 of the bytes between two places of an open file."""
    digest = hashlib.sha256()
    for block in blocks(file, begin, end):
        digest.update(block)
    return digest.hexdigest()


def blocks(file: int, begin: int, end: int) -> Iterator[memoryview]:
    """Read the bytes between two places of an open file. The bytes of a block are gone when the next one is read."""
    buffer = memoryview(bytearray(min(_BLOCK, max(0, end - begin))))
    while begin < end and (length := os.preadv(file, [buffer[: end - begin]], begin)):
        yield buffer[:length]
        begin += length
