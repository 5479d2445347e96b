"""What connections were sent: of a session, and of a message of a channel.

"Sent" is what the relay wrote to a connection. Nothing here says that anybody saw it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from relay.audit.query.records import Record, Sent
from relay.core.events import SUBSCRIBE_ACTIONS, Action
from relay.core.patterns import covers
from relay.core.scope import Scope


class Verdict(StrEnum):
    """Whether a connection was sent a message, as far as the log can tell."""

    SENT = "was sent"
    PERHAPS = "may have been sent"
    NOT = "was not sent"


@dataclass(slots=True, kw_only=True)
class Delivery:
    """What a connection was sent of one epoch of a channel. Without a channel: messages that have no row."""

    user: str
    session: str
    connection: str
    channel: str
    epoch: str
    since: str
    until: str
    first: int = 0
    last: int = 0
    count: int = 0
    complete: bool = True


@dataclass(slots=True, kw_only=True)
class Recipient:
    """A connection that subscribed to a channel, and whether it was sent a message of it."""

    verdict: Verdict
    user: str
    session: str
    address: str
    connection: str
    since: str
    until: str


_REPORTS = (Action.CONNECTION_CHANNELS, Action.CONNECTION_CLOSED)


def sent_to(records: Iterable[Record], about: str) -> list[Delivery]:
    """Return what a session, a user, a token or a connection was sent, by connection, channel and epoch."""
    found: dict[tuple[str, str, str], Delivery] = {}
    for record in records:
        own = record.relay
        names = (own.session.ref, record.user.id, own.token.jti, own.connection.id)
        if record.event.action not in _REPORTS or about not in names:
            continue
        rest = own.others.count
        for row in (*own.sent, *([Sent(count=rest)] if rest else [])):
            key = (own.connection.id, row.channel, row.epoch)
            delivery = found.get(key)
            if delivery is None:
                found[key] = Delivery(
                    user=record.user.id,
                    session=own.session.ref,
                    connection=own.connection.id,
                    channel=row.channel,
                    epoch=row.epoch,
                    since=own.since,
                    until=record.at,
                    first=row.first,
                    last=row.last,
                    count=row.count,
                    complete=row.complete,
                )
            else:
                _add(delivery, row, until=record.at)
    return list(found.values())


def _add(delivery: Delivery, row: Sent, *, until: str) -> None:
    meets = row.first <= delivery.last + 1 and delivery.first <= row.last + 1
    delivery.complete = delivery.complete and row.complete and meets
    delivery.first, delivery.last = min(delivery.first, row.first), max(delivery.last, row.last)
    delivery.count += row.count
    delivery.until = until


@dataclass(slots=True)
class _Connection:
    """What the log says of a connection."""

    begun: Record
    subscribed: bool = False
    perhaps: bool = False
    """Its records do not name all its channels, or not all that it was sent."""
    rows: list[Sent] = field(default_factory=list)
    reports: int = 0
    ended: Record | None = None


def recipients(
    records: Iterable[Record], channel: str, *, epoch: str, first: int, last: int
) -> list[Recipient]:
    """Return the connections that subscribed to a channel, and whether they were sent its messages `first` to `last`.

    `was sent` means each of these messages. The records are those of the connections' whole lives, in order.
    """
    connections: dict[str, _Connection] = {}
    for record in records:
        own = record.relay
        if record.event.action == Action.CONNECT_ACCEPTED:
            connections[own.connection.id] = _Connection(record)
        connection = connections.get(own.connection.id)
        if connection is None:
            continue
        if record.event.action in SUBSCRIBE_ACTIONS:
            connection.subscribed |= any(covers(name, channel) for name in own.channels)
            connection.perhaps |= own.count > len(own.channels) and Scope(own.token.channels).allows(channel)
        elif record.event.action in _REPORTS:
            connection.rows += [row for row in own.sent if (row.channel, row.epoch) == (channel, epoch)]
            connection.perhaps |= own.others.count > 0
            connection.reports += record.event.action == Action.CONNECTION_CHANNELS
            if record.event.action == Action.CONNECTION_CLOSED:
                connection.ended = record
    return [
        Recipient(
            verdict=_verdict(connection, first, last),
            user=connection.begun.user.id,
            session=connection.begun.relay.session.ref,
            address=connection.begun.client.ip,
            connection=identifier,
            since=connection.begun.at,
            until=connection.ended.at if connection.ended else "",
        )
        for identifier, connection in connections.items()
        if connection.subscribed or connection.perhaps or connection.rows
    ]


def _verdict(connection: _Connection, first: int, last: int) -> Verdict:
    rows = sorted(connection.rows, key=lambda row: row.first)
    ended = connection.ended
    # the last messages may have waited in the relay when the connection ended: each has at least one byte
    unsent = 0 if ended is None else ended.relay.connection.unsent_bytes
    newest = max((row.last for row in rows), default=0)
    next_needed = first
    for row in rows:
        if row.complete and row.first <= next_needed <= row.last:
            next_needed = row.last + 1
    if next_needed > last:
        return Verdict.PERHAPS if last > newest - unsent else Verdict.SENT
    if any(row.first <= last and row.last >= first for row in rows) or connection.perhaps:
        return Verdict.PERHAPS
    is_whole = ended is not None and connection.reports == ended.relay.reports
    # what came after the last report is not known; numbers below the newest that was sent are in no later report
    return Verdict.NOT if is_whole or (ended is None and newest > last) else Verdict.PERHAPS
