"""`relay audit anomalies`: the records that look like theft or abuse."""

from typing import Annotated

import typer

from relay.audit.anomalies import Anomaly
from relay.audit.query.marked import marked
from relay.cli.audit.input import Log, query
from relay.cli.audit.known_names import unknown
from relay.cli.audit.output import print_rows
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
    from relay.audit.index.questions import lines_with_marks

    lines = lines_with_marks(index)
    rows = [
        {
            "at": record.at if as_json else log.shown(record.at),
            "marks": record.relay.anomalies,
            "action": record.event.action,
            "reason": record.event.reason,
            "user": record.user.id,
            "address": record.client.ip,
            "jti": record.relay.token.jti,
        }
        for record in marked(log.reader.records(lines), marks=mark)
    ]
    print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing="There are no anomalies.")
