"""`relay doctor`: settings of a deployment that are valid but unwise, what they mean, and what to do."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from relay.cli.options import ConfigOption, JsonOption, config_path
from relay.cli.tables import print_table

if TYPE_CHECKING:
    from relay.doctor import Finding

_COLUMNS = ("severity", "check", "found", "what it means", "what to do")


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
    elif findings:
        print_table(_COLUMNS, [list(item.values()) for item in _plain(findings)])
    if not as_json:
        typer.echo(_summary(findings, len(CHECKS)))
    raise typer.Exit(1 if bad else 0)


def _plain(findings: Sequence["Finding"]) -> list[dict[str, str]]:
    return [
        {
            "severity": finding.check.severity.value,
            "check": finding.check.name,
            "found": finding.found,
            "means": finding.check.means,
            "do": finding.check.do,
        }
        for finding in findings
    ]


def _summary(findings: Sequence["Finding"], checks: int) -> str:
    if not findings:
        return f"All is well: {checks} checks found nothing."
    counts = Counter(finding.check.severity.value for finding in findings)
    listed = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items())
    return f"{listed} from {checks} checks."
