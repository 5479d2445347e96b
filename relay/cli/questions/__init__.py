"""`relay audit why|who|scopes|anomalies|stats|export|tail`: questions to an audit log, asked of its files."""

import typer

from relay.cli.questions.asking import anomalies, scopes, stats, who, why
from relay.cli.questions.exporting import export
from relay.cli.questions.following import tail

COMMANDS = (why, who, scopes, anomalies, stats, export, tail)


def add_questions(app: typer.Typer) -> None:
    """Add the commands to `relay audit`."""
    for command in COMMANDS:
        app.command(command.__name__)(command)


__all__ = ["add_questions"]
