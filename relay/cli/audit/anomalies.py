"""`relay audit anomalies`: the records that look like theft or abuse."""

from typing import Annotated

import typer

from relay.audit.anomalies import Anomaly
from relay.cli.audit.input import Log, query
from relay.cli.audit.known_names import unknown
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.options import JsonOption
from relay.core.errors import ConfigurationError

_COLUMNS = ("at", "marks", "action", "reason", "user", "address", "jti")


@query
def anomalies(
    log: Log,
    *,
    mark: Annotated[
        list[str] | None,
        typer.Option("--mark", metavar="MARK", help="Only this mark, like replay; repeat it for several."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what looks like theft: replays, tokens at the wrong place or from elsewhere, floods of refusals."""
    for name in mark or ():
        if name not in list(Anomaly):
            raise ConfigurationError(unknown("an anomaly mark", name, list(Anomaly)))
    index = log.index
    from relay.audit.index.questions import marked

    rows = [fields_of(row) for row in marked(index, marks=mark)]
    if as_json:
        rows = [{name: row[name] for name in _COLUMNS} for row in rows]
    else:
        rows = [row | {"at": log.shown(row["at"])} for row in rows]
    print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing=log.nothing("There are no anomalies."))
