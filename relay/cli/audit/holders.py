"""`relay audit holds`: who holds which scope. `relay audit refused`: what was asked and not granted."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from relay.audit.query.explain import explained
from relay.audit.query.holders import holders
from relay.audit.query.records import RecordReader, iso
from relay.audit.query.refused import refused_grants
from relay.cli.audit.input import FilesOption, Log, query, reported
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.audit.publications import check_pattern
from relay.cli.audit.times import LocalOption, parse_moment_or_span
from relay.cli.options import ConfigOption, JsonOption
from relay.core.patterns import covers

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOLDERS = (
    "user",
    "endpoint",
    "channels",
    "how",
    "since",
    "until",
    "address",
    "session",
    "connection",
    "jti",
)
_REFUSED = ("user", "address", "endpoint", "channel", "asked_for", "reason", "count", "first", "last")


def who_holds(
    *,
    at: Annotated[
        str, typer.Option("--at", help="The moment: 2h for two hours ago, or a time. Default: now.")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", help="Who held one at any time from this one on, instead of --at.")
    ] = "",
    until: Annotated[str, typer.Option("--until", help="The end of that span of time; else now.")] = "",
    channel: Annotated[
        str,
        typer.Option("--channel", help="Only scopes that this channel, or a part of this pattern, is in."),
    ] = "",
    local: LocalOption = False,
    as_json: JsonOption = False,
    file: FilesOption = None,
    config: ConfigOption = None,
) -> None:
    """Show who holds which scope: open connections, and tokens that can still be used."""
    if channel:
        check_pattern(channel)
    with reported(Log(file=file, config=config, local=local)) as log:
        moment, begin = parse_moment_or_span(at, since, until, local=local)
        first = begin or moment
        log.asked = iso(first), iso(moment)
        index = log.index
        from relay.audit.index.questions import lines_of_holders

        lines = lines_of_holders(
            index, begin=iso(first), end=iso(moment), expires=(first - _EPOCH).total_seconds()
        )
        rows = [
            fields_of(row)
            for row in holders(log.to_the_end(RecordReader().records(lines)), at=moment, since=begin)
            if not channel or any(covers(one, channel) or covers(channel, one) for one in row.channels)
        ]
        if not as_json:
            rows = [log.shown_life(row) | {"channels": row["channels"] or ["(service)"]} for row in rows]
        within = f" that {channel} is in" if channel else ""
        nothing = f"Nobody holds a scope{within} now."
        if at or begin is not None:
            nothing = (
                f"Nobody held a scope{within} {'in that time' if begin is not None else 'at that moment'}."
            )
        print_rows(rows, as_json=as_json, columns=_HOLDERS, nothing=log.nothing(nothing))


@query
def refused(log: Log, *, as_json: JsonOption = False) -> None:
    """Show what was asked and not granted, and why.

    These are the channels of token requests and of subscriptions.
    """
    index = log.index
    from relay.audit.index.questions import lines_of_refused_grants

    rows = [fields_of(row) for row in refused_grants(log.reader.records(lines_of_refused_grants(index)))]
    if not as_json:
        rows = [row | {"first": log.shown(row["first"]), "last": log.shown(row["last"])} for row in rows]
        rows = [row | {"meaning": explained(row["reason"])} for row in rows]
    nothing = log.nothing("Everything that was asked in this time was granted.")
    print_rows(rows, as_json=as_json, columns=(*_REFUSED, "meaning"), nothing=nothing, right=("count",))
