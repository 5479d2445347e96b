"""The files of one log: the one that is written, and beside it the older ones, named by their first record.

`audit.jsonl` is written; `audit-000000000001.jsonl`, `audit-000000250001.jsonl` came before. In this order they are
one chain: each begins with a checkpoint that follows the last record of the one before.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DIGITS = 12
"""In a name, so that the names' order is the records'."""


def old_name(path: Path, first: int) -> Path:
    """Return what the log's file is called once another is written. `first` is its first record."""
    return path.with_name(f"{path.stem}-{first:0{_DIGITS}d}{path.suffix}")


def next_name(path: Path) -> Path:
    """Return where the next file is made ready before it takes the log's name."""
    return path.with_name(f".{path.name}.next")


def old_files(path: Path) -> list[tuple[int, Path]]:
    """Return the older files of the log at `path`, with their first records, the oldest first."""
    return sorted(_old(path))


def _old(path: Path) -> Iterator[tuple[int, Path]]:
    pattern = re.compile(rf"{re.escape(path.stem)}-([0-9]{{{_DIGITS}}}){re.escape(path.suffix)}")
    with suppress(FileNotFoundError):
        for entry in path.parent.iterdir():
            if match := pattern.fullmatch(entry.name):
                yield int(match[1]), entry


def log_files(path: Path) -> list[Path]:
    """Return all files of the log at `path` in the order of their records; `path` itself is the last."""
    # a crash while a file changes its name leaves it with both
    return [old for _, old in old_files(path) if not _same(old, path)] + [path]


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def clean_up(path: Path) -> None:
    """Tidy up after a crash in the middle of `swap_in`. Call it as the log's only writer.

    Raises:
        OSError: if something can't be removed.
    """
    next_name(path).unlink(missing_ok=True)
    for _, old in old_files(path)[-1:]:
        if _same(old, path):
            old.unlink()


def swap_in(path: Path, first: int) -> Path:
    """Give the log's file its older name, and the one made ready the log's; returns the older name.

    At every moment there is a file at `path`, so that no other process can take the log over in between.

    Raises:
        OSError: if the names can't be changed; then nothing has changed.
    """
    old = old_name(path, first)
    os.link(path, old)
    try:
        next_name(path).replace(path)
    except OSError:
        old.unlink()
        raise
    return old


def delete_older(path: Path, before: float) -> list[Path]:
    """Delete the older files that were last written to before a time (Unix seconds); returns which.

    Only from the oldest on, or a file with a wrong time would tear a hole into the chain.

    Raises:
        OSError: if one can't be deleted.
    """
    dropped = []
    for _, old in old_files(path):
        if old.stat().st_mtime >= before:
            break
        old.unlink()
        dropped.append(old)
    return dropped
