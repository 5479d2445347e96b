"""Copies of parts as database files of DuckDB, which a process can read that may open no other file."""

import os
from collections.abc import Callable
from pathlib import Path

from relay.audit.index import manifest

SUFFIXES = (".lines.duckdb", ".lines.sha256")
"""The ends of the names of a copy, and of the file with its sums."""


def database_of(part: Path, sums: str, copy: Callable[[Path], None]) -> Path:
    """Return the database with the rows of a part. It is made once, and again if its bytes changed.

    `part` is the folder with the part's name, `sums` are those of the part's sheets, and `copy` writes its rows as a
    database.

    Raises:
        OSError: if it can't be written.
    """
    path, sum_ = (part.with_name(part.name + suffix) for suffix in SUFFIXES)
    try:
        if sum_.read_text("ascii") == f"{sums} {_sha256_of(path)}\n":
            return path
    except (OSError, ValueError):
        pass
    aside = part.with_name(f".{path.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    copy(aside)
    with aside.open("rb+") as written:
        os.fsync(written.fileno())
    made = _sha256_of(aside)
    aside.replace(path)
    with manifest.replacing(sum_) as file:
        file.write(f"{sums} {made}\n".encode())
    return path


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return manifest.sha256_of(file.fileno())
