"""`relay audit export`: the log as a table for spreadsheets."""

import csv
import sys
from enum import StrEnum
from typing import Annotated

import typer

from relay.audit.query.records import Record
from relay.cli.audit.input import Log, query
from relay.cli.output import printable

_COLUMNS = (
    *("at", "action", "outcome", "reason", "user", "address", "endpoint", "session", "roles", "jti"),
    *("connection", "channels", "close_code", "duration_ms", "messages_out", "anomalies"),
    *("publisher", "operator"),
)


class Format(StrEnum):
    """Formats of an export."""

    CSV = "csv"


@query
def export(
    log: Log,
    *,
    format: Annotated[Format, typer.Option("--format", help="The format of the output.")] = Format.CSV,  # noqa: A002  # the option's name
) -> None:
    """Write the log as CSV (RFC 4180), a row for each record."""
    assert format is Format.CSV
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for record in log.reader.records(log.lines()):
        writer.writerow([_safe(value) for value in _row(record)])


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
