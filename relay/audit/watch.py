"""The auditor that everybody is given: it marks what is strange, bounds floods of denials, and passes the rest on.

In one place, so that no shell has to think of it, and before the queue of the log: a flood that was only cut on
its way to the disk would have filled the queue by then.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog

from relay.audit.anomalies import ANOMALY_OF, Anomaly, ClientIdentity
from relay.audit.base import Auditor, Observer
from relay.audit.budget import PERIOD_S, DenialBudget
from relay.core.events import Action, Event, is_denial, to_line

_log = structlog.get_logger("relay.audit")


class ClosableAuditor(Auditor, Protocol):
    """An auditor that has something to write out at the end."""

    async def aclose(self) -> None:
        """Write what waits, and close."""
        ...


class WatchedAuditor:
    """An `Auditor` in front of another one. End it with `aclose`, which ends the other as well.

    `clock` gives Unix seconds; `denials` are recorded singly for one user or address in a minute; `observers` see
    every event.
    """

    def __init__(
        self,
        auditor: ClosableAuditor,
        *,
        client_identity: ClientIdentity,
        denials: int,
        clock: Callable[[], float] = time.time,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._auditor = auditor
        self._observers = tuple(observers)
        self._client_identity = client_identity
        self._budget = DenialBudget(each=denials)
        self._clock = clock
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def record(self, event: Event) -> None:
        """See `Auditor.record`."""
        event = self._marked(event)
        await self._auditor.record(event)
        self._observe(event)

    def note(self, event: Event) -> None:
        """See `Auditor.note`. A denial beyond the budget is counted, and reported within a minute."""
        event = self._marked(event)
        self._observe(event)
        if is_denial(event):
            self._begin_minute()
            verdict = self._budget.count(event)
            if not verdict.recorded:
                return
            if verdict.burst:
                event = _with_marks(event, [Anomaly.DENIAL_BURST])
        self._auditor.note(event)

    async def aclose(self) -> None:
        """Write what was counted, and what waits, and close the log."""
        self.end_minute()
        await self._auditor.aclose()

    def end_minute(self) -> None:
        """Record what was only counted since the minute began; the next denial begins another."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if overflow := self._budget.end_period():
            since = datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds")
            event = Event(action=Action.DENIALS_AGGREGATED, relay={**overflow, "since": since})
            self._auditor.note(_with_marks(event, [Anomaly.DENIAL_BURST]))

    def _observe(self, event: Event) -> None:
        for observe in self._observers:
            try:
                observe(event)
            except Exception:  # noqa: BLE001  # a counter that fails must not take a token with it
                _log.exception("an observer of the audit events failed", action=event.action.value)

    def _begin_minute(self) -> None:
        if self._timer is None:
            self._since = self._clock()
            with suppress(RuntimeError):  # without an event loop the minute ends when the log is closed
                self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self.end_minute)

    def _marked(self, event: Event) -> Event:
        marks = []
        if event.reason is not None and event.reason in ANOMALY_OF:
            marks.append(ANOMALY_OF[event.reason])
        if event.asker:
            marks += self._client_identity.differences(event.asker, event.relay["token"]["jti"], event.client)
        return _with_marks(event, marks) if marks else event


def _with_marks(event: Event, marks: Sequence[Anomaly]) -> Event:
    before = event.relay.get("anomalies", ())
    return msgspec.structs.replace(
        event, relay={**event.relay, "anomalies": [*before, *(mark.value for mark in marks)]}
    )


def show_event(event: Event) -> None:
    """Show an event in the process's own log, at level debug. An `Observer`."""
    _log.debug("event", **to_line(event))
