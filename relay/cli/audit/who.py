"""`relay audit who`: the connections of an endpoint at a moment."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.audit.query import connected
from relay.audit.query.records import iso
from relay.cli.audit.input import FilesOption, Log, reported
from relay.cli.audit.known_names import check_endpoint
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.audit.times import LocalOption, parse_time
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError

_COLUMNS = ("user", "address", "since", "until", "channels", "subscribed", "connection", "jti")


def who(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's name in the settings.")],
    *,
    at: Annotated[str, typer.Option("--at", help="The moment: 2h for two hours ago, or a time.")] = "",
    since: Annotated[
        str, typer.Option("--since", help="Who was connected at any time from this one on, instead of --at.")
    ] = "",
    until: Annotated[str, typer.Option("--until", help="The end of that span of time; else now.")] = "",
    channel: Annotated[
        str, typer.Option("--channel", help="Only connections that subscribed to this channel.")
    ] = "",
    local: LocalOption = False,
    as_json: JsonOption = False,
    file: FilesOption = None,
    config: ConfigOption = None,
) -> None:
    """Show who was connected to an endpoint at a moment, or in a span of time."""
    if at and (since or until):
        raise ConfigurationError("--at is a moment, --since and --until are a span: give one of the two.")
    option = "--until" if until else "--at"
    moment = parse_time(until or at or "0s", option=option, local=local)
    begin = parse_time(since, option="--since", local=local) if since else None
    if until and begin is None:
        begin = datetime.min.replace(tzinfo=UTC)
    first = moment if begin is None else begin
    with reported(Log(file=file, config=config, local=local)) as log:
        index = log.index
        from relay.audit.index import questions

        check_endpoint(endpoint, questions.endpoints(index), config=config, of_settings=not file)
        lines = questions.lines_of_connections(index, endpoint, begin=iso(first), end=iso(moment))
        found = connected.connected_at(
            log.reader.records(lines), endpoint, at=moment, since=begin, channel=channel or None
        )
    rows = [fields_of(row) for row in found]
    if not as_json:
        rows = [
            row
            | {"since": log.shown(row["since"]), "until": _until(row | {"until": log.shown(row["until"])})}
            | {"subscribed": [*row["subscribed"], *([f"and {row['more']} more"] if row["more"] else [])]}
            for row in rows
        ]
    when = (
        f"at {log.shown(iso(moment))}"
        if begin is None
        else f"between {since or 'the beginning'} and {until or 'now'}"
    )
    nothing = f"Nobody was connected to {printable(endpoint)} {printable(when)}."
    print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing=nothing)


def _until(row: dict[str, Any]) -> str:
    if row["killed"]:
        return f"its relay died before {row['until']}"
    return row["until"] or "open when the log ends"
