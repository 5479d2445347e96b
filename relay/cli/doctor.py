"""`relay doctor`: settings of a deployment that are valid but unwise, what they mean, and what to do."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.cli.options import ConfigOption, JsonOption, config_path

if TYPE_CHECKING:
    from relay.doctor import Finding

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def doctor(
    config: ConfigOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask other servers for the time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a deployment for settings that are valid but unwise.

    Run it on the relay's machine and as the relay's user.

    Exit code 0: no findings, or notes only; 1: an error or a warning was
    found; 2: the relay can't start with these settings.
    """
    from relay.doctor import CHECKS, Severity, examine, gather
    from relay.server.certificates import listener_tls
    from relay.settings.load import load

    path = config_path(config)
    settings = load(path)
    listener_tls(settings)
    deployment = anyio.run(lambda: gather(settings, path, ask=not offline))
    findings = examine(deployment)
    bad = any(finding.check.severity is not Severity.NOTE for finding in findings)
    if as_json:
        typer.echo(
            json.dumps({"fine": not bad, "checks": len(CHECKS), "findings": _plain(findings)}, indent=2)
        )
    elif sys.stdout.isatty():
        _print_table(findings, Console())
    else:
        _print_lines(findings)
    if not as_json:
        typer.echo(_summary(findings, len(CHECKS)))
    raise typer.Exit(1 if bad else 0)


def _plain(findings: Sequence["Finding"]) -> list[dict[str, str]]:
    return [
        {
            "check": finding.check.name,
            "severity": finding.check.severity.value,
            "found": finding.found,
            "means": finding.check.means,
            "do": finding.check.do,
        }
        for finding in findings
    ]


def _print_lines(findings: Sequence["Finding"]) -> None:
    for item in _plain(findings):
        typer.echo(f"{item['severity']}: {item['check']}: {item['found']}")
        typer.echo(f"    {item['means']}")
        typer.echo(f"    {item['do']}")


def _print_table(findings: Sequence["Finding"], console: Console) -> None:
    if not findings:
        return
    table = Table(box=None, header_style="bold", pad_edge=False, show_lines=True)
    for heading in ("severity", "found", "what it means", "what to do"):
        table.add_column(heading, overflow="fold")
    for item in _plain(findings):
        found = Text(f"{item['found']}\n").append(item["check"], style="dim")
        style = _STYLES[item["severity"]]
        table.add_row(Text(item["severity"], style=style), found, Text(item["means"]), Text(item["do"]))
    console.print(table)
    console.print()


def _summary(findings: Sequence["Finding"], checks: int) -> str:
    if not findings:
        return f"All is well: {checks} checks found nothing."
    counts = Counter(finding.check.severity.value for finding in findings)
    listed = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items())
    return f"{listed} from {checks} checks."
