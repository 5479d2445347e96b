"""`relay audit why`: the timeline of a token, a connection, a session or a user, an address or a publisher."""

import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Annotated

import typer

from relay.audit.query import timeline
from relay.cli.audit.input import Log, query
from relay.cli.audit.known_names import unknown
from relay.cli.audit.output import fields_of, print_json, print_rows
from relay.cli.options import JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError

_COLUMNS = ("at", "action", "user", "address", "marks", "token", "connection", "sentence")

_INDENT = "    "


@query
def why(
    log: Log,
    about: Annotated[
        str,
        typer.Argument(
            metavar="JTI|CONNECTION|SESSION|USER",
            help="A token's id, a connection's id, a session's reference, or a user.",
        ),
    ] = "",
    *,
    address: Annotated[str, typer.Option("--address", help="Instead: what came from an address.")] = "",
    publisher: Annotated[str, typer.Option("--publisher", help="Instead: what a publisher did.")] = "",
    newest: Annotated[
        int | None, typer.Option("--newest", metavar="N", min=1, help="Only the newest N steps.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything that happened to a token, a connection, a session or a user, oldest first."""
    if [bool(about), bool(address), bool(publisher)].count(True) != 1:
        raise ConfigurationError(
            "Give one of JTI|CONNECTION|SESSION|USER, --address and --publisher: the id of a token or a connection, "
            "a session's reference, a user, an address, or a publisher's name."
        )
    steps = _told(log, about, address=address, publisher=publisher, newest=newest)
    if as_json:
        print_json([fields_of(step) for step in steps])
        return
    nothing = f"The log has nothing about {printable(about or address or publisher)} in this time."
    if not steps or not sys.stdout.isatty():
        print_rows(
            [fields_of(step) | {"at": log.shown(step.at)} for step in steps],
            as_json=False,
            columns=_COLUMNS,
            nothing=nothing,
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
        sentence = textwrap.fill(
            printable(step.sentence), max(console.width - len(_INDENT), 20), break_on_hyphens=False
        )
        console.print(Text(textwrap.indent(sentence, _INDENT)), soft_wrap=True)


def _told(
    log: Log, about: str, *, address: str, publisher: str, newest: int | None
) -> Sequence[timeline.Step]:
    """Return the steps.

    Raises:
        ConfigurationError: if the log knows no such name at any time. In a part of it, that is an answer.
    """
    index = log.index
    from relay.audit.index.questions import (
        NAMES,
        Naming,
        is_named,
        lines_of_address,
        lines_of_publisher,
        names_like,
    )

    with suppress(ValueError):
        address = str(ip_address(address))  # as the log writes it
    steps: Sequence[timeline.Step]
    if address:
        found = log.reader.records(lines_of_address(index, address, newest=newest))
        kind, steps = "an address", timeline.of_address(found, address)
    elif publisher:
        found = log.reader.records(lines_of_publisher(index, publisher, newest=newest))
        kind, steps = "a publisher", timeline.of_publisher(found, publisher)
    else:
        steps = timeline.timeline_of(Naming(index), about, reader=log.reader)
        kind, steps = "a user, session, token or connection", steps[-(newest or 0) :]
    name = about or address or publisher
    columns = NAMES if about else ("address",) if address else ("publisher", "claimed_name")
    if not steps and not is_named(index, name, columns):
        raise ConfigurationError(unknown(kind, name, names_like(index, name, columns)))
    return steps
