"""The files of one log: the current one, and the older ones, named by the number of their first record.

`audit.jsonl` is the current file; `audit-000000000001.jsonl` and `audit-000000250001.jsonl` are older. In the order of
their numbers they are one chain: each file begins with a checkpoint that follows the last record of the file before.

Several processes of one machine (`relay serve --workers`) have a chain each, because a chain has one writer:
`audit.1.jsonl`, `audit.2.jsonl` and so on, with older files of the same form. A process takes the lowest number that
no living process has, and continues its chain. So there are never more chains than processes were alive at a time.
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
_PROCESS = re.compile(rf"\.([1-9][0-9]{{0,5}})(?:-[0-9]{{{_DIGITS}}})?\Z")
"""The number of a process, at the end of a name without its suffix."""


def old_name(path: Path, first: int) -> Path:
    """Return the name that the log's file gets when the next one replaces it. `first`: its first record's number."""
    return path.with_name(f"{path.stem}-{first:0{_DIGITS}d}{path.suffix}")


def next_name(path: Path) -> Path:
    """Return the temporary name of the next file, before it gets the log's name."""
    return path.with_name(f".{path.name}.next")


def old_files(path: Path) -> list[tuple[int, Path]]:
    """Return the older files of the log at `path`, with the numbers of their first records, the oldest first."""
    return sorted(_old(path))


def process_path(path: Path, number: int) -> Path:
    """Return where the process of this number (from 1) writes its part of the log at `path`."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def chains(path: Path) -> list[list[Path]]:
    """Return the files of each chain of the log at `path`: the relay's own, and those of the processes of a machine.

    The files of a chain are in the order of their records. Without any file, `path` itself is the only one.
    """
    found = [log_files(path)] if path.exists() or old_files(path) else []
    return found + [log_files(one) for one in process_paths(path)] or [[path]]


def process_paths(path: Path) -> list[Path]:
    """Return the logs that processes of this machine have written beside the one at `path`, by their numbers."""
    numbers = set()
    with suppress(FileNotFoundError):
        for entry in path.parent.iterdir():
            number = process_number(entry)
            if number and entry.name.startswith(f"{path.stem}.{number}") and entry.suffix == path.suffix:
                numbers.add(number)
    return [process_path(path, number) for number in sorted(numbers)]


def process_number(file: Path) -> int:
    """Return the number of the process whose name a file of a log has, 0 if it has none."""
    found = _PROCESS.search(file.stem)
    return int(found[1]) if found else 0


def is_written(path: Path) -> bool:
    """Tell whether a living process writes the log of a process at `path`.

    For a moment this holds the lock. A process that starts then takes the next number; a relay without a number would
    refuse to start.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _old(path: Path) -> Iterator[tuple[int, Path]]:
    pattern = re.compile(rf"{re.escape(path.stem)}-([0-9]{{{_DIGITS}}}){re.escape(path.suffix)}")
    with suppress(FileNotFoundError):
        for entry in path.parent.iterdir():
            if match := pattern.fullmatch(entry.name):
                yield int(match[1]), entry


def log_files(path: Path) -> list[Path]:
    """Return all files of one chain in the order of their records; `path` itself is the last."""
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


def delete_ended(path: Path, before: float) -> list[Path]:
    """Delete what is too old of the chains of ended processes beside the log at `path`, and return the files.

    A chain that nobody has continued goes as a whole, its last file too. One that is being written is left alone: its
    own writer deletes its older files.

    Raises:
        OSError: if a file can't be deleted.
    """
    deleted = []
    for one in process_paths(path):
        with suppress(BlockingIOError, FileNotFoundError), one.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody continues it while it is deleted
            deleted += delete_older(one, before)
            if not old_files(one) and os.fstat(file.fileno()).st_mtime < before:
                one.unlink()
                deleted.append(one)
    return deleted
