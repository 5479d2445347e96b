"""Counts of a log's records, and the records with anomalies."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from relay.audit.query.records import Record
from relay.core.events import Action

TOP = 10
"""Users and addresses that are listed."""


@dataclass(slots=True)
class Stats:
    """Counts of a log's records. `refusals` are by action and reason, and include denials that were only counted.

    `lost` are events that could not be recorded, by action.
    """

    records: int = 0
    first: str = ""
    last: str = ""
    actions: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    endpoints: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


def stats(records: Iterable[Record]) -> Stats:
    """Count a log's records. Tokens and connects are counted by endpoint, refusals by user and address."""
    found = Stats()
    for record in records:
        found.records += 1
        found.first = found.first or record.at
        found.last = record.at
        action = record.event.action
        found.actions[action] += 1
        if action in (Action.TOKEN_ISSUED, Action.CONNECT_ACCEPTED):
            found.endpoints[record.relay.endpoint] += 1
        for denied, reasons in record.relay.denied.items():  # denials beyond the budget
            found.refusals.update({(denied, reason): count for reason, count in reasons.items()})
        if record.event.reason and record.event.outcome == "failure":
            # the record of a refused frame or batch has the number of its publications
            of_many = record.relay.count if action == Action.PUBLISH_DENIED else 0
            found.refusals[action, record.event.reason] += of_many or 1
            found.users[record.user.id] += bool(record.user.id)
            found.addresses[record.client.ip] += bool(record.client.ip)
        found.lost.update(record.relay.lost)
    return found


def anomalies(records: Iterable[Record], *, marks: Iterable[str] | None = None) -> list[Record]:
    """Return the records with anomalies, or with one of `marks`."""
    wanted = None if marks is None else set(marks)
    return [
        record
        for record in records
        if record.relay.anomalies and (wanted is None or not wanted.isdisjoint(record.relay.anomalies))
    ]
