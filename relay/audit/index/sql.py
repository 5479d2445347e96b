"""A query of the user to the index's views, run by a process that can do nothing else (`relay.audit.index.sandbox`)."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from relay.audit.index import sandbox
from relay.audit.index.database import Index
from relay.audit.index.parts import Progress
from relay.audit.index.views import VIEWS, copies_for, named, statements
from relay.core.errors import ConfigurationError, RelayError

_MAX_LINE = 16 << 20
"""Bytes of a row of an answer, at most."""
_AT = re.compile(r'(?<!")\bat\b', re.IGNORECASE)
_CANDIDATES = 8
"""Names that an error lists."""


class Answer:
    """The answer to a query: the names and types of its columns, and its rows. Values are those of JSON."""

    def __init__(self, columns: list[tuple[str, str]], rows: Iterator[list[Any]]) -> None:
        self.columns = columns
        self.rows = rows


@contextmanager
def asked(
    index: Index, query: str, *, timeout_s: int, progress: Progress = lambda _done: None
) -> Iterator[Answer]:
    """Ask the views. The rows come while they are read, and end with an error if the query takes too long.

    `progress` is told of the parts of the index that are copied for it.

    Raises:
        ConfigurationError: if the query has a mistake.
        RelayError: if it takes too long or too much memory.
        OSError: if the databases can't be written.
    """
    limits = {"memory_mb": index.memory_mb, "cpu_s": timeout_s * 2}  # it has two threads
    with TemporaryDirectory(dir=index.folder, prefix=".sql-") as aside:
        process = subprocess.Popen(
            [sys.executable, "-I", sandbox.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8"},
            cwd=os.sep,
        )
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            process.kill()

        timer = threading.Timer(timeout_s, kill)
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as sink:  # it says why below
                sink.write(json.dumps(limits).encode() + b"\n")
                sink.flush()  # it loads DuckDB while the copies are checked here
                names = named(query)
                copied = index.databases(copies_for(names), Path(aside), progress)
                setup = {
                    "databases": [str(one.path) for one in copied],
                    "views": statements(
                        names,
                        copied,
                        index.span,
                        index.newest() if "grants" in names else "",
                        index.killed,
                    ),
                }
                timer.start()
                sink.write(json.dumps(setup).encode() + b"\n" + query.encode())
            lines = _lines(process, killed, timeout_s, index.memory_mb)
            first = next(lines)
            yield Answer([(name, type_) for name, type_ in first["columns"]], _rows(lines))
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _lines(
    process: "subprocess.Popen[bytes]", killed: threading.Event, timeout_s: int, memory_mb: int
) -> Iterator[Any]:
    """Yield the lines of the process, of which the last one has the number of rows."""
    assert process.stdout is not None
    while line := process.stdout.readline(_MAX_LINE):
        if not line.endswith(b"\n"):
            break
        found = msgspec.json.decode(line)
        if isinstance(found, dict) and "error" in found:
            raise _error(found["kind"], found["error"], memory_mb)
        yield found
        if isinstance(found, dict) and "rows" in found:
            return
    if line:
        raise RelayError(f"A row of the answer is longer than {_MAX_LINE >> 20} MB.")
    if killed.is_set() or process.wait() == -signal.SIGXCPU:
        raise RelayError(
            f"The query took longer than {timeout_s} s and was ended. Narrow it, or give --timeout."
        )
    raise _too_much(memory_mb)


def _too_much(memory_mb: int) -> RelayError:
    return RelayError(
        f"The query needs more memory than the {memory_mb} MB that audit.index_memory_mb gives it. Raise that, or "
        "narrow the query, as with --since."
    )


def _rows(lines: Iterator[Any]) -> Iterator[list[Any]]:
    for found in lines:
        if isinstance(found, list):
            yield found


def _error(kind: str, text: str, memory_mb: int) -> RelayError:
    """Return the error for what DuckDB says: short, and with what helps."""
    if kind == "OutOfMemoryException":
        return _too_much(memory_mb)
    if kind == "Refused":
        return ConfigurationError(text)
    if kind == "PermissionException":
        return ConfigurationError(
            "A query can read the views alone: no files, extensions or other databases."
        )
    first, *more = [line for line in text.splitlines() if line.strip()] or [kind]
    if kind == "CatalogException" and first.startswith("Catalog Error: Table"):
        return ConfigurationError(f"{first.split(':', 1)[1].strip()} There are the views {', '.join(VIEWS)}.")
    sentence = first.split(": ", 1)[-1]
    near = next((line.partition(": ")[2] for line in more if line.startswith("Candidate bindings")), "")
    if near:
        sentence += f" Did you mean {', '.join(near.split(', ')[:_CANDIDATES])}?"
    where = next((f" In {line.strip()}" for line in more if line.startswith("LINE ")), "")
    if kind == "ParserException" and _AT.search(where):
        sentence += ' The column at is a word of SQL: write "at".'
    return ConfigurationError(f"{sentence}{where}")


def write_parquet(index: Index, answer: Answer, path: Path) -> None:
    """Write an answer as a Parquet file. Columns of other types than numbers, texts, times and lists of texts are JSON.

    Raises:
        RelayError: if it can't be written.
    """
    with TemporaryDirectory(dir=index.folder, prefix=".sql-") as aside:
        rows = Path(aside) / "rows.json"
        names = unlike([name for name, _ in answer.columns])
        types = [_kept(type_) for _, type_ in answer.columns]
        with rows.open("wb") as sink:
            for row in answer.rows:
                sink.write(msgspec.json.encode(dict(zip(names, row, strict=True))) + b"\n")
        index.write_parquet(rows, dict(zip(names, types, strict=True)), path)


_PLAIN = frozenset(
    {
        *(
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INTEGER",
            "BIGINT",
            "HUGEINT",
            "UBIGINT",
            "UINTEGER",
            "USMALLINT",
            "UTINYINT",
            "DOUBLE",
            "FLOAT",
            "VARCHAR",
        ),
        *("TIMESTAMP", "DATE", "TIME", "VARCHAR[]"),
    }
)


def _kept(type_: str) -> str:
    """Return the type of a column in a file, for the values that JSON has of it."""
    name = type_.partition("(")[0]
    if name == "DECIMAL":
        return "DOUBLE"
    return (
        "VARCHAR"
        if name in ("UUID", "INTERVAL", "BLOB", "BIT", "ENUM")
        else type_
        if type_ in _PLAIN
        else "JSON"
    )


def unlike(names: list[str]) -> list[str]:
    """Return names of columns of which no two are alike, whatever their case."""
    found: dict[str, str] = {}
    for name in names:
        one, number = name, 1
        while one.lower() in found:
            number += 1
            one = f"{name}_{number}"
        found[one.lower()] = one
    return list(found.values())
