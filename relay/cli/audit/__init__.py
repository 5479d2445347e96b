"""`relay audit`: one module a command. `verify` proves that a log is whole; the others ask what it says.

Several people can write into a log, and the person who reads it has a terminal. No command therefore prints a
character of a log that a terminal might obey.
"""

import typer

from relay.cli.lazy import LazyGroup


class _Commands(LazyGroup):
    entries = {
        "verify": (
            "relay.cli.audit.verify:verify",
            "Name the first modified, deleted, inserted or reordered record of an audit log.",
        ),
        "why": (
            "relay.cli.audit.why:why",
            "Show everything that happened to a token, a connection, a session or a user, oldest first.",
        ),
        "who": (
            "relay.cli.audit.who:who",
            "Show who was connected to an endpoint at a moment, or in a span of time.",
        ),
        "scopes": (
            "relay.cli.audit.scopes:scopes",
            "Show what was granted and never used; or with other grants, who would have lost what.",
        ),
        "anomalies": (
            "relay.cli.audit.anomalies:anomalies",
            "Show what looks like theft: replays, tokens at the wrong place or from elsewhere, floods of refusals.",
        ),
        "stats": (
            "relay.cli.audit.stats:stats",
            "Count the log: actions, refusals with their reasons, endpoints, who was refused most.",
        ),
        "export": (
            "relay.cli.audit.export:export",
            "Write the log as CSV (RFC 4180), a row for each record.",
        ),
        "tail": (
            "relay.cli.audit.tail:tail",
            "Show the newest records, and each new one as it is written.",
        ),
    }


app = typer.Typer(cls=_Commands, no_args_is_help=True, help="Check the audit log, and query it.")


@app.callback()
def audit() -> None:
    """Check the audit log, and query it."""
