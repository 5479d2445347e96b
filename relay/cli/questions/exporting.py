"""`relay audit export`: the log as a table for spreadsheets."""

import csv
import sys
from enum import StrEnum
from typing import Annotated

import typer

from relay.audit.query.records import Record
from relay.cli.questions.given import FilesOption, Log, SinceOption, UntilOption
from relay.cli.serve import ConfigOption
from relay.cli.views import printable

_COLUMNS = (
    *("at", "action", "outcome", "reason", "user", "address", "endpoint", "session", "roles", "jti"),
    *(
        "connection",
        "channels",
        "close_code",
        "duration_ms",
        "messages_out",
        "anomalies",
        "publisher",
        "operator",
    ),
)


class Format(StrEnum):
    """Formats of an export."""

    CSV = "csv"


def export(
    *,
    format: Annotated[Format, typer.Option("--format", help="The form of the output.")] = Format.CSV,  # noqa: A002  # the option's name
    file: FilesOption = None,
    config: ConfigOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
) -> None:
    """Write the log as CSV (RFC 4180), a row for each record."""
    assert format is Format.CSV
    log = Log(file, config=config, since=since, until=until)
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for record in log.reading.records(log.lines()):
        writer.writerow([_safe(value) for value in _row(record)])
    log.tell_missing()


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
    """Return a cell that a spreadsheet won't run: a text that begins like a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")) else text
