"""`relay audit`: one module a command. `verify` proves that a log is whole; the others ask what it says.

Several people can write into a log, and the person who reads it has a terminal. No command therefore prints a
character of a log that a terminal might obey.
"""

from typing import Any

import typer

from relay.audit.index import opening
from relay.cli.lazy import LazyGroup

_WITHOUT_INDEX = frozenset({"verify", "tail"})
"""Commands that read the log itself."""


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
        "holds": (
            "relay.cli.audit.holders:who_holds",
            "Show who holds which scope: open connections, and tokens that can still be used.",
        ),
        "refused": (
            "relay.cli.audit.holders:refused",
            "Show what was asked and not granted, and why.",
        ),
        "publications": (
            "relay.cli.audit.publications:publications",
            "Show who published on a channel.",
        ),
        "sent": (
            "relay.cli.audit.sent:sent",
            "Show what a session, a user, a token or a connection was sent.",
        ),
        "recipients": (
            "relay.cli.audit.sent:who_was_sent",
            "Show who was sent a message, who may have been, and who was not.",
        ),
        "anomalies": (
            "relay.cli.audit.anomalies:anomalies",
            "Show what looks like theft: replays, tokens at the wrong place or from elsewhere, floods of refusals.",
        ),
        "stats": (
            "relay.cli.audit.stats:stats",
            "Count the log: actions, refusals with their reasons, endpoints, who was refused most.",
        ),
        "diff": (
            "relay.cli.audit.diff:diff",
            "Show what a role, user or publisher had and used in one period and not in another.",
        ),
        "sql": (
            "relay.cli.audit.sql:sql",
            "Ask the log a question in SQL, or list the views that can be asked.",
        ),
        "report": (
            "relay.cli.audit.report:report",
            "Write one page for an auditor: what was granted, used and refused, and proof that the log is whole.",
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

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command. The database of a question is opened while the command's modules are imported."""
        if args[0] in self.entries and args[0] not in _WITHOUT_INDEX and "--help" not in args:
            opening.begin()
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Commands, no_args_is_help=True, help="Check the audit log, and query it.")


@app.callback()
def audit() -> None:
    """Check the audit log, and query it."""
