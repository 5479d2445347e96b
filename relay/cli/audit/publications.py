"""`relay audit publications`: who published on a channel."""

from typing import Annotated

import typer

from relay.cli.audit.input import Log, query
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.options import JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError
from relay.core.patterns import is_pattern

_COLUMNS = ("publisher", "address", "channel", "count", "first", "last", "since", "until", "epoch")


def check_pattern(name: str) -> None:
    """Check the name of a channel or pattern.

    Raises:
        ConfigurationError: if it is neither.
    """
    if not is_pattern(name):
        raise ConfigurationError(
            f"{printable(name)!r} is no channel and no pattern. Give prices.BTC-USD, or prices.> for all below prices."
        )


@query
def publications(
    log: Log,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="A channel, or a pattern like prices.>")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show who published on a channel.

    Each minute has a row: from which address, how much, and with which numbers.
    """
    check_pattern(channel)
    index = log.index
    from relay.audit.index.publications import published_on

    rows = [fields_of(row) for row in published_on(index, channel)]
    if not as_json:
        rows = [
            row
            | {"since": log.shown(row["since"]), "until": log.shown(row["until"])}
            | ({} if row["channel"] else {"channel": "(not named: see limits.publications_recorded)"})
            for row in rows
        ]
    nothing = log.nothing(f"Nobody published on {printable(channel)} in this time, as far as the log tells.")
    print_rows(rows, as_json=as_json, columns=_COLUMNS, nothing=nothing, right=("count", "first", "last"))
