"""The audit trail of what each connection was sent: at its end, and every ten minutes of a long one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from relay.audit.base import Auditor
from relay.core.events import MAX_LIST, Action, Event
from relay.core.hub import Hub
from relay.core.sent import REST, Span, Spans
from relay.core.subscribers import Subscriber
from relay.stream.gate import Admitted
from relay.stream.registry import Connection
from relay.stream.reports import closed_event
from relay.stream.usage import Usage

REPORT_EVERY_S = 600
"""Seconds of an open connection that a report covers. If the relay is killed, what was sent since then is not known."""
FIRST_REPORT_S = 300
"""Seconds after which the first report of a connection comes at the earliest. Between this and `REPORT_EVERY_S` the
first reports are spread evenly, because clients often come together, as after a restart. The reports of 20,000
connections with 20 channels each take 3 s of CPU, a third of it on the log's thread: at once, or 1% of a core."""
_SPREAD = 0.618033988749895
"""The golden ratio: the fractions of its multiples are spread evenly, however many they are."""


def _rows(spans: Sequence[tuple[tuple[str, str], Span]]) -> dict[str, Any]:
    return {
        "sent": [
            {
                "channel": channel,
                "epoch": epoch,
                "first": span.first,
                "last": span.last,
                "count": span.messages,
                "complete": span.complete,
            }
            for (channel, epoch), span in spans
        ]
    }


@dataclass(frozen=True, slots=True)
class Report:
    """The part of a report that has room in one record: its fields, and what makes its rows."""

    fields: Mapping[str, Any]
    rows: Callable[[], Mapping[str, Any]] | None


class _Open:
    """An open connection, and from when on its next report counts, in Unix seconds. It is `due` in that second.

    `reports` counts its records so far. Its last one has their number, so that a reader sees whether one is missing.
    """

    __slots__ = ("admitted", "due", "reports", "since", "subscriber")

    def __init__(self, subscriber: Subscriber, admitted: Admitted, due: int) -> None:
        self.subscriber = subscriber
        self.admitted = admitted
        self.due = due
        self.reports = 0
        self.since = time.time()


class SentReports:
    """Reports of what the open connections are sent.

    `each`: the rows of one connection in a report. What has no row is summed up.
    """

    def __init__(self, hub: Hub, auditor: Auditor, *, each: int) -> None:
        self.each = each
        self._hub = hub
        self._auditor = auditor
        self._open: dict[Connection, _Open] = {}
        self._due: dict[int, dict[Connection, None]] = {}
        """By the second of `time.monotonic`: whose reports are due then."""
        self._looked = int(time.monotonic())
        self._begun = 0

    def begin(self, connection: Connection, admitted: Admitted, subscriber: Subscriber) -> None:
        """Report a connection from now on."""
        self._begun += 1
        later = self._begun * _SPREAD % 1 * (REPORT_EVERY_S - FIRST_REPORT_S)
        due = int(time.monotonic() + FIRST_REPORT_S + later)
        self._open[connection] = _Open(subscriber, admitted, due)
        self._due.setdefault(due, {})[connection] = None

    def end(self, connection: Connection, usage: Usage) -> None:
        """Record the end of a connection that has left the hub."""
        state = self._open.pop(connection)
        del self._due[state.due][connection]
        first, *others = self._reports(state, state.subscriber.spans) or [Report({}, None)]
        for report in others:
            self._note(connection, state, report)
        fields = {**first.fields, "reports": state.reports}
        event = closed_event(connection, state.admitted, state.subscriber, usage, fields)
        self._auditor.note(msgspec.structs.replace(event, more=first.rows))

    async def run(self) -> None:
        """Report connections that are open for long, until cancelled."""
        while True:
            await anyio.sleep(1)
            await self.report_due(time.monotonic())

    async def report_due(self, now: float) -> None:
        """Report the connections whose reports are due, one in each turn of the loop."""
        while self._looked < int(now):
            self._looked += 1
            due = self._due.get(self._looked, {})
            while due:
                self._report(next(iter(due)), due=self._looked + REPORT_EVERY_S)
                await anyio.lowlevel.checkpoint()
            self._due.pop(self._looked, None)

    def _report(self, connection: Connection, *, due: int) -> None:
        state = self._open[connection]
        del self._due[state.due][connection]
        state.due = due
        self._due.setdefault(due, {})[connection] = None
        for report in self._reports(state, self._hub.take_spans(state.subscriber)):
            self._note(connection, state, report)
        state.since = time.time()

    def _note(self, connection: Connection, state: _Open, report: Report) -> None:
        state.reports += 1
        claims, attempt = state.admitted.claims, state.admitted.attempt
        self._auditor.note(
            Event(
                action=Action.CONNECTION_CHANNELS,
                user=claims.subject,
                client=attempt.client,
                endpoint=attempt.endpoint.name,
                relay={
                    "session": {"ref": claims.session_ref},
                    "token": {"jti": claims.jti},
                    "connection": {"id": str(connection.id)},
                    **report.fields,
                },
                more=report.rows,
            )
        )

    def _reports(self, state: _Open, spans: Spans) -> list[Report]:
        """Return what was sent, with the rows of `MAX_LIST` channels in each report. Nothing: no report."""
        found = [(key, span) for key, span in spans.items() if key != REST and span.messages > 0]
        rest = sum(span.messages for _, span in found[self.each :])
        rest += spans[REST].messages if REST in spans else 0
        since = datetime.fromtimestamp(state.since, UTC).isoformat(timespec="milliseconds")
        fields = {"since": since.replace("+00:00", "Z")}
        found = found[: self.each]
        reports = [
            Report(fields, partial(_rows, found[at : at + MAX_LIST])) for at in range(0, len(found), MAX_LIST)
        ]
        if rest:
            reports[:1] = [
                Report({**fields, "others": {"count": rest}}, reports[0].rows if reports else None)
            ]
        return reports
