"""The state file, as each of its users opens it: one connection for one thread, in WAL mode."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from relay.core.errors import ConfigurationError

_BUSY_S = 1.0
"""Seconds that a writer waits for another one, in this process or in one that shares the file."""


@contextlib.contextmanager
def open_file(
    path: Path, schema: str, *, synchronous: Literal["NORMAL", "FULL"]
) -> Iterator[sqlite3.Connection]:
    """Open or create the file at `path`, and create the tables of `schema`. The caller closes the connection.

    It is closed here if SQLite raises, in the block too. `synchronous` FULL syncs the disk at each commit.

    Raises:
        ConfigurationError: if the file can't be opened or written, is locked, or is not a SQLite file.
    """
    database = None
    try:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_BUSY_S)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA synchronous={synchronous}")
        database.executescript(schema)
        yield database
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise ConfigurationError(
            f"engine.state_path: {path} can't be used as the state file ({error}). "
            "Set it to a file in a folder that this process may write to."
        ) from None
