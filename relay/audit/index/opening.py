"""A DuckDB database for an index. It can be opened on a thread, beside the imports of a command."""

from contextlib import suppress
from importlib.util import find_spec
from threading import Thread
from typing import Any

_CONFIG: dict[str, bool | int | float | str | list[str]] = {
    "threads": 2,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


class _Opening(Thread):
    """Opens a database: 30 ms, in most of which other threads run."""

    database: Any = None

    def run(self) -> None:
        """Keep the database. What fails here is raised where the database is wanted."""
        with suppress(Exception):
            self.database = _opened()


_begun: list[_Opening] = []


def begin() -> None:
    """Begin to open the database that the next call of `opened` returns. Without DuckDB, nothing happens."""
    if find_spec("duckdb") is not None:  # two threads that import what can't be imported get different errors
        _begun[:] = [_Opening()]
        _begun[0].start()


def opened() -> Any:
    """Return a database that is in memory and that nobody else uses.

    Raises:
        duckdb.Error: if there is none.
    """
    if _begun:
        opening = _begun.pop()
        opening.join()
        if opening.database is not None:
            return opening.database
    return _opened()


def _opened() -> Any:
    from relay.audit.index.native import duckdb  # its import takes as long as those of a command

    database = duckdb.connect(config=_CONFIG)
    database.execute("SET enable_progress_bar = false")  # it would be in the answer
    database.execute("SET parquet_metadata_cache = true")  # a query reads a file up to six times
    return database
