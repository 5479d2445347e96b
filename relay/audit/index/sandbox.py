"""Runs one query to copies of an audit log's index, in a process of its own that can do nothing else.

It is started as a file, with Python's own modules and DuckDB alone. Limits of memory, CPU and files hold before DuckDB
is loaded. DuckDB is locked before the query is read: no file can be opened, and no setting changed.

Standard input has a line of JSON with the limits, one with what to open, and after them the query. Standard output has
lines of JSON: the columns, each row, and the number of rows at the end; or an error.
"""

import json
import resource
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

_OVERHEAD_MB = 1536
"""Address space that Python and DuckDB's code and threads take, beside DuckDB's memory."""
_SOME = 1000


def main() -> None:
    """Answer the query of standard input."""
    limits = json.loads(sys.stdin.readline())
    memory = (limits["memory_mb"] + _OVERHEAD_MB) << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"] + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import _duckdb as duckdb  # without Python's modules around it: see `native`
    except ImportError:
        import duckdb  # type: ignore[no-redef]  # the same

    try:
        database = locked(duckdb, limits | json.loads(sys.stdin.readline()))
        _answer(database, sys.stdin.read())
    except duckdb.Error as error:
        _write({"error": str(error), "kind": type(error).__name__})
    except (MemoryError, RecursionError):
        _write({"error": "", "kind": "OutOfMemoryException"})


def locked(duckdb: Any, setup: dict[str, Any]) -> Any:
    """Open the files of the index for reading, and lock the database."""
    database = duckdb.connect(
        config={
            "memory_limit": f"{setup['memory_mb']}MB",
            "threads": 2,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    for number, path in enumerate(setup["databases"]):
        quoted = path.replace("'", "''")
        database.execute(f"ATTACH '{quoted}' AS part_{number} (READ_ONLY)")
    for statement in setup["views"]:
        database.execute(statement)
    database.execute("SET enable_progress_bar = false")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def _answer(database: Any, query: str) -> None:
    statements = database.extract_statements(query)
    if len(statements) != 1:
        _write({"error": f"Give one statement, and not {len(statements)}.", "kind": "Refused"})
        return
    kind = statements[0].type.name
    if kind not in ("SELECT", "EXPLAIN"):
        _write({"error": f"Only SELECT is allowed, and not {kind}: the log is read-only.", "kind": "Refused"})
        return
    found = database.execute(statements[0])
    columns = [[name, str(type_)] for name, type_, *_ in found.description]
    if any("WITH TIME ZONE" in type_ for _, type_ in columns):
        _write(
            {
                "error": "A time with a zone can't be shown. Cast it, as in now()::TIMESTAMP.",
                "kind": "Refused",
            }
        )
        return
    _write({"columns": columns})
    number = 0
    while rows := found.fetchmany(_SOME):
        for row in rows:
            _write([_plain(value) for value in row])
        number += len(rows)
    _write({"rows": number})


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)


def _write(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
