"""`relay audit who`: the connections of an endpoint at a moment."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from relay.audit.query import connected
from relay.audit.query.records import iso
from relay.cli.audit.input import FilesOption, Log, parse_time
from relay.cli.audit.known_names import Endpoints
from relay.cli.audit.output import print_rows
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.output import printable

_COLUMNS = ("user", "address", "since", "until", "channels", "connection", "jti")


def who(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's name in the settings.")],
    *,
    at: Annotated[str, typer.Option("--at", help="The moment: 2h for two hours ago, or a time.")] = "0s",
    as_json: JsonOption = False,
    file: FilesOption = None,
    config: ConfigOption = None,
) -> None:
    """Show who was connected to an endpoint at a moment."""
    log = Log(file=file, config=config)
    moment = parse_time(at, option="--at")
    endpoints = Endpoints(config, file)
    records = endpoints.seen_in(log.reader.records(log.lines()))
    rows = [asdict(row) for row in connected.connected_at(records, endpoint, at=moment)]
    try:
        endpoints.check(endpoint)
    finally:
        log.report_missing()
    if not as_json:
        rows = [row | {"until": _until(row)} for row in rows]
    nothing = f"Nobody was connected to {printable(endpoint)} at {iso(moment)}."
    print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing=nothing)


def _until(row: dict[str, Any]) -> str:
    if row["killed"]:
        return f"its relay died before {row['until']}"
    return row["until"] or "open when the log ends"
