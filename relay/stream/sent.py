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

REPORT_EVERY_S = 600.0
"""Seconds of an open connection that a report covers. If the relay is killed, what was sent since then is not known."""
LOOK_EVERY_S = 10.0
"""Seconds between two looks for connections whose report is due."""
LOOKS_PER_TURN = 500
"""Connections that are looked at in one turn of the loop: less than a millisecond."""


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
    """An open connection, and from when on its next report counts: in Unix seconds, and as `time.monotonic`.

    `reports` counts its records so far. Its last one has their number, so that a reader sees whether one is missing.
    """

    __slots__ = ("admitted", "began", "reports", "since", "subscriber")

    def __init__(self, subscriber: Subscriber, admitted: Admitted) -> None:
        self.subscriber = subscriber
        self.admitted = admitted
        self.reports = 0
        self.restart()

    def restart(self) -> None:
        self.since, self.began = time.time(), time.monotonic()


class SentReports:
    """Reports of what the open connections are sent.

    `each`: the rows of one connection in a report. What has no row is summed up.
    """

    def __init__(self, hub: Hub, auditor: Auditor, *, each: int) -> None:
        self.each = each
        self._hub = hub
        self._auditor = auditor
        self._open: dict[Connection, _Open] = {}

    def begin(self, connection: Connection, admitted: Admitted, subscriber: Subscriber) -> None:
        """Report a connection from now on."""
        self._open[connection] = _Open(subscriber, admitted)

    def end(self, connection: Connection, usage: Usage) -> None:
        """Record the end of a connection that has left the hub."""
        state = self._open.pop(connection)
        first, *others = self._reports(state, state.subscriber.spans) or [Report({}, None)]
        for report in others:
            self._note(connection, state, report)
        fields = {**first.fields, "reports": state.reports}
        event = closed_event(connection, state.admitted, state.subscriber, usage, fields)
        self._auditor.note(msgspec.structs.replace(event, more=first.rows))

    async def run(
        self, *, look_every_s: float = LOOK_EVERY_S, report_every_s: float = REPORT_EVERY_S
    ) -> None:
        """Report connections that are open for long, until cancelled."""
        while True:
            await anyio.sleep(look_every_s)
            for number, (connection, state) in enumerate(list(self._open.items()), 1):
                if connection in self._open and time.monotonic() - state.began >= report_every_s:
                    for report in self._reports(state, self._hub.take_spans(state.subscriber)):
                        self._note(connection, state, report)
                    state.restart()
                    await anyio.lowlevel.checkpoint()
                elif not number % LOOKS_PER_TURN:
                    await anyio.lowlevel.checkpoint()

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
