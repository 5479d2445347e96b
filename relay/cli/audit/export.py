"""`relay audit export`: the log as a table for spreadsheets."""

import csv
import functools
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from relay.cli.audit.input import Log, query
from relay.cli.output import printable

_COLUMNS = {
    "at": "moment",
    "action": "action",
    "outcome": "outcome",
    "reason": "reason",
    "user": "user_id",
    "address": "address",
    "endpoint": "endpoint",
    "session": "session",
    "roles": "roles",
    "jti": "jti",
    "connection": "connection",
    "channels": "CASE WHEN len(channels) > 0 THEN channels ELSE scope END",
    "close_code": "close_code",
    "duration_ms": "duration_ms",
    "messages_out": "messages_out",
    "anomalies": "marks",
    "publisher": "publisher",
    "operator": "operator",
}
"""The columns of the table, and what they have of the index."""

_KEPT = 10_000
"""Cells that are kept as they were written, because most texts of a log come again."""

_OPEN = frozenset(
    f"relay.{name}" for name in ("addresses", "denied", "lost", "publishers", "sessions", "sought", "users")
)
"""Members whose own members are names or counts. Each would be a column of its own."""


class Format(StrEnum):
    """Formats of an export."""

    CSV = "csv"


@query
def export(
    log: Log,
    *,
    format: Annotated[Format, typer.Option("--format", help="The format of the output.")] = Format.CSV,  # noqa: A002  # the option's name
    all_fields: Annotated[
        bool,
        typer.Option("--all", help="A column for each field that a record has, named as in the record."),
    ] = False,
) -> None:
    """Write the log as CSV (RFC 4180), a row for each record."""
    assert format is Format.CSV
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    if all_fields:
        _write_all(log, writer)
        return
    index = log.index
    from relay.audit.index.questions import table

    writer.writerow(_COLUMNS)
    safe = functools.lru_cache(_KEPT)(safe_cell)
    for row in table(index, _COLUMNS.values()):
        writer.writerow([safe(" ".join(value) if isinstance(value, list) else value) for value in row])


def _write_all(log: Log, writer: Any) -> None:
    """Write a column for each field. The first pass finds the fields, the second writes them."""
    index = log.index
    from relay.audit.index.questions import lines

    names = sorted({name for line in lines(index) for name, _ in _fields(line)})
    # without its @, because a spreadsheet takes a cell that begins with one as a formula
    writer.writerow([safe_cell("timestamp" if name == "@timestamp" else name) for name in names])
    for line in lines(index):
        found = dict(_fields(line))
        writer.writerow([safe_cell(found.get(name, "")) for name in names])


def _fields(line: bytes) -> Iterator[tuple[str, object]]:
    """Yield the fields of a record, by their names with dots. A list or a table of counts is JSON in one cell."""
    waiting: list[tuple[str, object]] = [("", msgspec.json.decode(line))]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict) and name not in _OPEN:
            waiting += [(f"{name}.{key}" if name else key, inner) for key, inner in value.items()]
        elif isinstance(value, dict | list):
            yield name, json.dumps(value)
        else:
            yield name, value


def safe_cell(value: object) -> object:
    """Return a cell that a spreadsheet does not run: an apostrophe is put before a text that begins like a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")) else text
