"""Copies of parts as database files of DuckDB, which a process can read that may open no other file."""

import os
from collections.abc import Callable
from pathlib import Path

from relay.audit.index import manifest
from relay.audit.index.parts import sources


def database_of(part: Path, opened: int, sha256: str, copy: Callable[[str, Path], None]) -> Path:
    """Return the database with the rows of a part. It is made once, and again if its bytes changed.

    `opened` is the file of the part, `sha256` that of its bytes, and `copy` writes the rows of a source as a database.

    Raises:
        OSError: if it can't be written.
    """
    path = part.with_name(f"{part.name}.duckdb")
    sum_ = part.with_name(f"{part.name}.sha256")
    try:
        if sum_.read_text("ascii") == f"{sha256} {_sha256_of(path)}\n":
            return path
    except (OSError, ValueError):
        pass
    aside = part.with_name(f".{part.name}.duckdb.{os.getpid()}.new")  # its name tells `Parts` to leave it
    aside.unlink(missing_ok=True)
    copy(sources([opened]), aside)
    with aside.open("rb+") as written:
        os.fsync(written.fileno())
    made = _sha256_of(aside)
    aside.replace(path)
    with manifest.replacing(sum_) as file:
        file.write(f"{sha256} {made}\n".encode())
    return path


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return manifest.sha256_of(file.fileno())
