"""The auditor that every room of the relay gets. It adds anomalies, limits floods, and passes events on.

It stands before the log's queue, because a flood that is only limited at the disk has already filled the queue.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog

from relay.audit.anomalies import Anomaly, ClientIdentity, looks_like_theft, refused_token_anomaly
from relay.audit.base import Auditor, Observer
from relay.audit.budget import PERIOD_S, DenialBudget, SubscriptionBudget
from relay.core.errors import DECIDED_BY, EXPLANATIONS, Reason
from relay.core.events import Action, Event, is_denial, to_line

_log = structlog.get_logger("relay.audit")


class ClosableAuditor(Auditor, Protocol):
    """An auditor that must be closed, because events may wait in it."""

    async def aclose(self) -> None:
        """Write the events that wait, and close."""
        ...


class WatchedAuditor:
    """An `Auditor` in front of another one. `aclose` closes both.

    `clock` returns Unix seconds. `denials` is the number of denials that are recorded for one user or address in a
    minute, and `subscriptions` the number of accepted subscriptions of one session. `observers` get every event, and
    `recorded_denials` get each denial that has a record of its own.
    """

    def __init__(
        self,
        auditor: ClosableAuditor,
        *,
        client_identity: ClientIdentity,
        denials: int,
        subscriptions: int,
        clock: Callable[[], float] = time.time,
        observers: Sequence[Observer] = (),
        recorded_denials: Sequence[Observer] = (),
    ) -> None:
        self._auditor = auditor
        self._recorded_denials = tuple(recorded_denials)
        self._observers = tuple(observers)
        self._client_identity = client_identity
        self._budget = DenialBudget(each=denials)
        self._subscriptions = SubscriptionBudget(each=subscriptions)
        self._clock = clock
        self._answered_early = 0
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def update(self, *, denials: int, subscriptions: int) -> None:
        """Use other budgets from now on. The counts of this minute stay."""
        self._budget.each = denials
        self._subscriptions.each = subscriptions

    async def record(self, event: Event) -> None:
        """See `Auditor.record`."""
        event = self._with_found_anomalies(event)
        await self._auditor.record(event)
        _show(event, self._observers)

    def note(self, event: Event) -> None:
        """See `Auditor.note`. A denial or subscription beyond its budget is counted, and reported within a minute."""
        kept = self._counted(event)[0]
        if kept is not None:
            self._auditor.note(kept)

    async def note_refusal(self, event: Event) -> None:
        """See `Auditor.note_refusal`.

        The first refusal of each token is waited for, within the budget of a minute. The next one that has a record
        says in `relay.answered_early` how many were answered without a wait, itself included.
        """
        kept, is_awaited = self._counted(event)
        self._answered_early += looks_like_theft(event) and not is_awaited
        if kept is not None and self._answered_early and looks_like_theft(kept):
            relay = {**kept.relay, "answered_early": self._answered_early}
            kept, self._answered_early = msgspec.structs.replace(kept, relay=relay), 0
        if kept is not None and is_awaited:
            await self._auditor.note_refusal(kept)
        elif kept is not None:
            self._auditor.note(kept)

    def _counted(self, event: Event) -> tuple[Event | None, bool]:
        """Return the event that has a record, with its anomalies, and whether its caller waits. None: it has none."""
        event = self._with_found_anomalies(event)
        _show(event, self._observers)
        is_awaited = False
        if is_denial(event):
            self._begin_minute()
            decision = self._budget.count(event)
            if not decision.recorded:
                return None, False
            if decision.burst:
                event = _with_anomalies(event, [Anomaly.DENIAL_BURST])
            is_awaited = decision.awaited
            _show(event, self._recorded_denials)
        elif event.action is Action.SUBSCRIBE_ACCEPTED:
            self._begin_minute()
            if not self._subscriptions.count(event):
                return None, False
        return event, is_awaited

    async def aclose(self) -> None:
        """Record what was only counted, and close the log."""
        self.end_minute()
        await self._auditor.aclose()

    def end_minute(self) -> None:
        """Record what was only counted in this minute. The next denial or subscription starts another minute."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        since = datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds")
        if overflow := self._budget.end_period():
            if self._answered_early:
                overflow = {**overflow, "answered_early": self._answered_early}
                self._answered_early = 0
            event = Event(action=Action.DENIALS_AGGREGATED, relay={**overflow, "since": since})
            self._auditor.note(_with_anomalies(event, [Anomaly.DENIAL_BURST]))
        if overflow := self._subscriptions.end_period():
            self._auditor.note(
                Event(action=Action.SUBSCRIPTIONS_AGGREGATED, relay={**overflow, "since": since})
            )

    def _begin_minute(self) -> None:
        if self._timer is None:
            self._since = self._clock()
            with suppress(RuntimeError):  # without an event loop, the minute ends when the log is closed
                self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self.end_minute)

    def _with_found_anomalies(self, event: Event) -> Event:
        found = []
        if event.reason is not None and (anomaly := refused_token_anomaly(event)):
            found.append(anomaly)
        if event.asker:
            found += self._client_identity.differences(event.asker, event.relay["token"]["jti"], event.client)
        return _with_anomalies(event, found) if found else event


def _show(event: Event, observers: Sequence[Observer]) -> None:
    for observe in observers:
        try:
            observe(event)
        except Exception:  # noqa: BLE001  # a metric that fails must not prevent a token
            _log.exception("an observer of the audit events failed", action=event.action.value)


def _with_anomalies(event: Event, found: Sequence[Anomaly]) -> Event:
    before = event.relay.get("anomalies", ())
    return msgspec.structs.replace(
        event, relay={**event.relay, "anomalies": [*before, *(anomaly.value for anomaly in found)]}
    )


def show_event(event: Event) -> None:
    """Show an event in the process's own log, at level debug. An `Observer`."""
    _log.debug("event", **to_line(event))


_OF_REQUESTS = frozenset(
    {
        Reason.REQUEST_MALFORMED,
        Reason.ENDPOINT_UNKNOWN,
        Reason.CHANNELS_TOO_MANY,
        Reason.NOTHING_GRANTED,
    }
)
"""Reasons whose details quote the request or the session's roles. Only the audit log has these details."""


_OF_ORIGINS = (Reason.CSRF_FAILED, Reason.ORIGIN_REFUSED)
"""What people meet first who develop a page at another address. Their details name the origin, which is no secret."""


def show_refusal(event: Event) -> None:
    """Show a refusal of the issuer, of the log-in, or of an origin in the process's own log, at level info.

    The line has the reason and the setting that decides. It has nothing of a token: no name, no role, no claim. An
    `Observer`.
    """
    of_actions = event.action in (Action.TOKEN_DENIED, Action.LOGIN_FAILED)
    if event.reason is None or not (of_actions or event.reason in _OF_ORIGINS):
        return
    why = EXPLANATIONS[event.reason]
    if event.reason not in _OF_REQUESTS:
        why = str(event.relay.get("detail", why))
    _log.info(
        "refused",
        action=event.action.value,
        reason=event.reason.value,
        setting=event.relay.get("setting") or DECIDED_BY.get(event.reason, ""),
        why=why,
        address=event.client.address,
    )
