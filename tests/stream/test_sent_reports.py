"""When the reports of long connections are due: every ten minutes, and not all at once if all clients came at once."""

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from relay.core.events import Client, Event
from relay.core.publications import Publication
from relay.stream.sent import FIRST_REPORT_S, REPORT_EVERY_S, SentReports
from tests.support.hub import flush, joined, make_hub

TOGETHER = 600


@dataclass(frozen=True)
class _Connection:
    id: int


async def test_the_reports_of_clients_that_came_together_are_spread() -> None:
    """Each connection is reported after five to ten minutes and then every ten, about the same number each second."""
    noted: list[Event] = []
    hub, _ = make_hub()
    sent = SentReports(hub, cast("Any", SimpleNamespace(note=noted.append)), each=10)
    begun = int(time.monotonic())
    for number in range(TOGETHER):
        _, subscriber = joined(hub, ["prices.A"])
        sent.begin(cast("Any", _Connection(number)), _admitted(), subscriber)
    reported: dict[int, list[int]] = {}
    for second in range(1, FIRST_REPORT_S + REPORT_EVERY_S + 20):
        if second % 100 == 1:
            hub.publish(Publication(channel="prices.A", epoch="e", seq=second, ts=second, data=b"1"))
            flush(hub)
        noted.clear()
        await sent.report_due(begun + second)
        for event in noted:
            reported.setdefault(event.relay["connection"]["id"], []).append(second)
    assert len(reported) == TOGETHER
    seconds: dict[int, int] = {}
    for first, *others in reported.values():
        assert FIRST_REPORT_S <= first <= REPORT_EVERY_S + 20
        assert others in ([], [first + REPORT_EVERY_S])
        seconds[first] = seconds.get(first, 0) + 1
    assert max(seconds.values()) <= 2 * TOGETHER / (REPORT_EVERY_S - FIRST_REPORT_S)


def _admitted() -> Any:
    claims = SimpleNamespace(subject="u", session_ref="r", jti="j")
    attempt = SimpleNamespace(client=Client(), endpoint=SimpleNamespace(name="prices"))
    return SimpleNamespace(claims=claims, attempt=attempt)
