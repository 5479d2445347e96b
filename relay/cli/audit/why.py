"""`relay audit why`: the timeline of a token, a connection, a session or a user."""

import json
import sys
from dataclasses import asdict
from functools import cache
from typing import Annotated

import typer

from relay.audit.query import timeline
from relay.cli.audit.input import Log, query
from relay.cli.audit.known_names import unknown
from relay.cli.audit.output import print_rows
from relay.cli.options import JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError

_COLUMNS = ("at", "action", "user", "address", "marks", "token", "connection", "sentence")


@query
def why(
    log: Log,
    about: Annotated[
        str,
        typer.Argument(
            metavar="JTI|CONNECTION|SESSION|USER",
            help="A token's id, a connection's id, a session's reference, or a user.",
        ),
    ],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show everything that happened to a token, a connection, a session or a user, oldest first."""
    index = log.index
    from relay.audit.index.questions import lines_naming, names

    @cache  # the first pass and the last may ask for the same
    def lines(known: frozenset[str]) -> list[bytes]:
        return list(lines_naming(index, known))

    steps = timeline.timeline_of(lambda known: lines(frozenset(known)), about, reader=log.reader)
    if not steps:
        raise ConfigurationError(unknown("a user, session, token or connection", about, names(index)))
    if as_json:
        sys.stdout.write(json.dumps([asdict(step) for step in steps]) + "\n")
        return
    if not sys.stdout.isatty():
        print_rows(
            [asdict(step) | {"at": log.shown(step.at)} for step in steps],
            as_json=False,
            columns=_COLUMNS,
            nothing="",
        )
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for step in steps:
        client = " ".join(text for text in (step.user, step.address and f"from {step.address}") if text)
        anomalies = f"  [!] {', '.join(step.marks)}" if step.marks else ""
        head = Text(f"{printable(log.shown(step.at))}  ", style="dim") + Text(
            printable(step.action), style="bold"
        )
        # soft: the terminal wraps a long line, and a copy of it is whole
        console.print(
            head + Text(f"  {printable(client)}", style="dim") + Text(printable(anomalies), style="bold red"),
            soft_wrap=True,
        )
        console.print(Text(f"    {printable(step.sentence)}"))
