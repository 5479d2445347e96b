"""The files of one log: the current one, and the older ones, named by the number of their first record.

`audit.jsonl` is the current file; `audit-000000000001.jsonl` and `audit-000000250001.jsonl` are older. In the order of
their numbers they are one chain: each file begins with a checkpoint that follows the last record of the file before.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DIGITS = 12
"""Digits of a number in a name, so that the order of the names is the order of the records."""


def old_name(path: Path, first: int) -> Path:
    """Return the name that the log's file gets when the next one replaces it. `first`: its first record's number."""
    return path.with_name(f"{path.stem}-{first:0{_DIGITS}d}{path.suffix}")


def next_name(path: Path) -> Path:
    """Return the temporary name of the next file, before it gets the log's name."""
    return path.with_name(f".{path.name}.next")


def old_files(path: Path) -> list[tuple[int, Path]]:
    """Return the older files of the log at `path`, with the numbers of their first records, the oldest first."""
    return sorted(_old(path))


def _old(path: Path) -> Iterator[tuple[int, Path]]:
    pattern = re.compile(rf"{re.escape(path.stem)}-([0-9]{{{_DIGITS}}}){re.escape(path.suffix)}")
    with suppress(FileNotFoundError):
        for entry in path.parent.iterdir():
            if match := pattern.fullmatch(entry.name):
                yield int(match[1]), entry


def log_files(path: Path) -> list[Path]:
    """Return all files of the log at `path` in the order of their records; `path` itself is the last."""
    # a crash in `swap_in` leaves a file with both names
    return [old for _, old in old_files(path) if not _same(old, path)] + [path]


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def clean_up(path: Path) -> None:
    """Remove the traces of a crash in `swap_in`. Only the log's writer may call it.

    Raises:
        OSError: if something can't be removed.
    """
    next_name(path).unlink(missing_ok=True)
    for _, old in old_files(path)[-1:]:
        if _same(old, path):
            old.unlink()


def swap_in(path: Path, first: int) -> Path:
    """Rename the log's file to its older name, and the next file to the log's name. Return the older name.

    There is a file at `path` at every moment, so that no other process can open a new log in between.

    Raises:
        OSError: if the files can't be renamed; then nothing has changed.
    """
    old = old_name(path, first)
    os.link(path, old)
    try:
        next_name(path).replace(path)
    except OSError:
        old.unlink()
        raise
    return old


def swap_in_renamed(path: Path, first: int, file: int) -> Path:
    """Do the same after another program has renamed the log's file, for which the descriptor `file` is open.

    The file gets its older name too, beside the one that the other program gave it: so the chain is still found.

    Raises:
        OSError: if that is not possible, or if a file with a content or another writer has the log's name.
    """
    with suppress(FileNotFoundError), path.open("rb") as other:  # logrotate leaves an empty one (`create`)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(other.fileno()).st_size:
            raise OSError(errno.EEXIST, f"another file took the name {path.name}; move it away")
    old = old_name(path, first)
    os.link(Path(f"/proc/self/fd/{file}").readlink(), old)
    if not os.path.samestat(old.stat(), os.fstat(file)):  # it was renamed once more
        old.unlink()
        raise OSError(errno.ESTALE, "it was renamed at this moment")
    try:
        next_name(path).replace(path)
    except OSError:
        old.unlink()
        raise
    return old


def delete_older(path: Path, before: float) -> list[Path]:
    """Delete the older files that were last written before a time (Unix seconds), and return them.

    It stops at the first file that is newer, because a file with a wrong time must not leave a gap in the chain.

    Raises:
        OSError: if a file can't be deleted.
    """
    deleted = []
    for _, old in old_files(path):
        if old.stat().st_mtime >= before:
            break
        old.unlink()
        deleted.append(old)
    return deleted
