"""`relay audit anomalies`: the records that look like theft or abuse."""

from relay.audit.query import summaries
from relay.cli.audit.input import Log, query
from relay.cli.audit.output import print_rows
from relay.cli.options import JsonOption

_COLUMNS = ("at", "marks", "action", "reason", "user", "address", "jti")


@query
def anomalies(log: Log, *, as_json: JsonOption = False) -> None:
    """Show what looks like theft: replays, tokens at the wrong place or from elsewhere, floods of refusals."""
    rows = [
        {
            "at": record.at,
            "marks": record.relay.anomalies,
            "action": record.event.action,
            "reason": record.event.reason,
            "user": record.user.id,
            "address": record.client.ip,
            "jti": record.relay.token.jti,
        }
        for record in summaries.anomalies(log.reader.records(log.lines()))
    ]
    print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing="There are no anomalies.")
