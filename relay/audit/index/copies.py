"""Copies of parts as database files of DuckDB, which a process can read that may open no other file."""

import os
from collections.abc import Callable
from pathlib import Path

from relay.audit.index import manifest
from relay.audit.index.parts import quoted


def database_of(part: Path, sha256: str, copy: Callable[[str, Path], None]) -> Path:
    """Return the database with the rows of a part. It is made once, and again if its bytes changed.

    `sha256` is that of the part, and `copy` writes the rows of a source as a database.

    Raises:
        OSError: if it can't be written.
    """
    path = part.with_name(f"{part.name}.duckdb")
    sum_ = part.with_name(f"{part.name}.sha256")
    try:
        if sum_.read_text("ascii") == f"{sha256} {manifest.sha256_of(path)}\n":
            return path
    except (OSError, ValueError):
        pass
    aside = part.with_name(f".{part.name}.duckdb.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    copy(f"read_parquet({quoted(part)})", aside)
    with aside.open("rb+") as written:
        os.fsync(written.fileno())
    made = manifest.sha256_of(aside)
    aside.replace(path)
    with manifest.replacing(sum_) as file:
        file.write(f"{sha256} {made}\n".encode())
    return path
