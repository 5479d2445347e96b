"""`relay audit who`: the connections of an endpoint at a moment."""

from typing import Annotated, Any

import typer

from relay.audit.query import connected
from relay.audit.query.records import iso
from relay.cli.audit.input import FilesOption, Log, reported
from relay.cli.audit.known_names import check_endpoint
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.audit.times import LocalOption, parse_moment_or_span
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.output import printable

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
        str, typer.Option("--channel", help="Only connections that subscribed to this channel, or may have.")
    ] = "",
    local: LocalOption = False,
    as_json: JsonOption = False,
    file: FilesOption = None,
    config: ConfigOption = None,
) -> None:
    """Show who was connected to an endpoint at a moment, or in a span of time."""
    with reported(Log(file=file, config=config, local=local)) as log:
        moment, begin = parse_moment_or_span(at, since, until, local=local)
        first = begin or moment
        log.asked = iso(first), iso(moment)
        index = log.index
        from relay.audit.index import questions

        check_endpoint(endpoint, questions.endpoints(index), config=config, of_settings=not file)
        lines = questions.lines_of_connections(index, endpoint, begin=iso(first), end=iso(moment))
        found = connected.connected_at(
            log.to_the_end(log.reader.records(lines)),
            endpoint,
            at=moment,
            since=begin,
            channel=channel or None,
        )
        rows = [fields_of(row) for row in found]
        if not as_json:
            rows = [
                log.shown_life(row) | {"subscribed": [*row["subscribed"], *_unnamed(row)]} for row in rows
            ]
        when = (
            f"at {log.shown(iso(moment))}"
            if begin is None
            else f"between {since or 'the beginning'} and {until or 'now'}"
        )
        subscribed = f" with {printable(channel)}" if channel else ""
        nothing = f"Nobody was connected to {printable(endpoint)}{subscribed} {printable(when)}."
        print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing=log.nothing(nothing))


def _unnamed(row: dict[str, Any]) -> list[str]:
    """Return what the records of a connection say of subscriptions that they do not name."""
    more = [f"and {row['more']} more"] if row["more"] else []
    return more + (["and perhaps others, which were only counted"] if row["only_counted"] else [])
