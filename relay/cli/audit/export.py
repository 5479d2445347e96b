"""`relay audit export`: the log as a table for spreadsheets."""

import csv
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from relay.audit.query.records import Record
from relay.cli.audit.input import Log, query
from relay.cli.output import printable

_COLUMNS = (
    *("at", "action", "outcome", "reason", "user", "address", "endpoint", "session", "roles", "jti"),
    *("connection", "channels", "close_code", "duration_ms", "messages_out", "anomalies"),
    *("publisher", "operator"),
)


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
    writer.writerow(_COLUMNS)
    for record in log.reader.records(log.lines()):
        writer.writerow([_safe(value) for value in _row(record)])


def _write_all(log: Log, writer: Any) -> None:
    """Write a column for each field. The first pass finds the fields, the second writes them."""
    names = sorted({name for line, _ in log.reader.with_lines(log.lines()) for name, _ in _fields(line)})
    # without its @, because a spreadsheet takes a cell that begins with one as a formula
    writer.writerow([_safe("timestamp" if name == "@timestamp" else name) for name in names])
    for line, _ in log.reader.with_lines(log.lines()):
        found = dict(_fields(line))
        writer.writerow([_safe(found.get(name, "")) for name in names])


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


def _row(record: Record) -> tuple[object, ...]:
    own = record.relay
    return (
        *(record.at, record.event.action, record.event.outcome, record.event.reason, record.user.id),
        *(record.client.ip, own.endpoint, own.session.ref, " ".join(own.session.roles), own.token.jti),
        *(own.connection.id, " ".join(own.channels or own.token.channels), own.connection.close_code),
        *(own.connection.duration_ms, own.connection.messages_out, " ".join(own.anomalies)),
        *(own.publisher.id, own.operator.id),
    )


def _safe(value: object) -> object:
    """Return a cell that a spreadsheet does not run: an apostrophe is put before a text that begins like a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")) else text
