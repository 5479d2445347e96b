"""The audit port: where events go.

Two ways in, because two kinds of callers exist. Whoever gives something away (the issuer, a log-in) calls
`record` and goes on only when the record is in the log: no token without a record. Whoever reports what
already happened (the gate, a closed connection) calls `note`, which never waits and never fails; what can't
be written is counted by action and reported by an `audit.gap` record as soon as there is room again.
"""

from collections.abc import Callable
from typing import Protocol

from relay.core.events import Event

Observer = Callable[[Event], None]
"""Sees every event once, as it happens: metrics count from it, and the process's own log shows it.

Called on the event loop, before the budget of denials, so that what a flood only counts is counted here one by one;
a `record` is seen when it is in the log, and not at all when it could not be written. It must not wait. What it raises
is logged and goes no further.
"""


class Auditor(Protocol):
    """Takes events for the audit log."""

    async def record(self, event: Event) -> None:
        """Write `event` and return when it is in the log.

        Raises:
            UnavailableError: if it could not be written (reason `audit_unavailable`).
        """
        ...

    def note(self, event: Event) -> None:
        """Queue `event` without waiting. Never raises; what is lost is counted and reported."""
        ...
