"""The audit port.

It has three methods for three kinds of callers. A caller that gives something away (the issuer, a log-in) awaits
`record`, and continues only when the record is in the log: there is no token without a record. A caller that reports
a past event (a closed connection) calls `note`, which never waits and never fails. A caller that is about to refuse
a token awaits `note_refusal`: what looks like theft is in the log before the thief is answered.
"""

from collections.abc import Callable
from typing import Protocol

from relay.core.events import Event

Observer = Callable[[Event], None]
"""Gets every event once: for metrics, and for the process's own log.

It is called on the event loop and must not wait. An exception is logged and not passed on. A denial reaches it even if
the budget of denials keeps it out of the log. The event of a `record` call reaches it only if it was written.
"""


class Auditor(Protocol):
    """Takes events for the audit log."""

    async def record(self, event: Event) -> None:
        """Write `event`, and return when it is in the log.

        Raises:
            UnavailableError: if it could not be written (reason `audit_unavailable`).
        """
        ...

    async def note_refusal(self, event: Event) -> None:
        """Do the same as `note`. If `event` looks like theft, return when it is in the log. Never raises.

        It also returns when the event can't be written, and at once for an event beyond the budget of such events.
        """
        ...

    def note(self, event: Event) -> None:
        """Queue `event` without waiting. Never raises.

        Events that can't be written are counted by action. An `audit.gap` record reports them as soon as one can be
        written.
        """
        ...
