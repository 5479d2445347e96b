"""What connections were sent: of a session, and of a message of a channel.

"Sent" is what the relay wrote to a connection. Nothing here says that anybody saw it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

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


class Recipient(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A connection that subscribed to a channel, and whether it was sent a message of it.

    `until` is "" if it is open when the log ends. `killed`: its relay ended without closing it, before `until`.
    """

    verdict: Verdict
    user: str
    session: str
    address: str
    connection: str
    since: str
    until: str
    killed: bool


class Unreported(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A connection of which the log does not say all that it was sent, from `since` on. `why`: open, killed or lost."""

    connection: str
    user: str
    since: str
    until: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The messages `first` to `last` of an epoch. `published`: not before this time; "": the log does not say."""

    epoch: str
    first: int
    last: int
    published: str = ""


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
    """Of the channel."""
    reported: str = ""
    """When it was reported last."""
    covered: str = ""
    """From when on its last report counts."""
    again: str = ""
    """When it subscribed to the channel once more: it may then get older messages again."""
    hidden: bool = False
    """It may have subscribed to the channel without a record: subscriptions above the budget are only counted."""
    reports: int = 0
    ended: Record | None = None
    killed: str = ""
    """Its relay ended without closing it, before this time."""

    @property
    def until(self) -> str:
        """When it ended, "" if it is open."""
        return self.ended.at if self.ended else self.killed

    @property
    def is_whole(self) -> bool:
        """Whether it ended and all its reports are there."""
        return self.ended is not None and self.reports == self.ended.relay.reports

    @property
    def may_have_it(self) -> bool:
        """Whether it subscribed to the channel, or may have."""
        return bool(self.subscribed or self.perhaps or self.rows or (self.hidden and not self.is_whole))

    def read(self, record: Record, channel: str) -> None:
        """Take over what one of its records says of the channel."""
        own = record.relay
        if record.event.action in SUBSCRIBE_ACTIONS:
            is_named = any(covers(name, channel) for name in own.channels)
            is_unnamed = own.count > len(own.channels) and Scope(self.begun.relay.token.channels).allows(
                channel
            )
            if (is_named or is_unnamed) and (self.subscribed or self.perhaps):
                self.again = record.at
            self.subscribed |= is_named
            self.perhaps |= is_unnamed
        elif record.event.action in _REPORTS:
            self.rows += [row for row in own.sent if row.channel == channel]
            self.perhaps |= own.others.count > 0


class _Connections:
    """The connections of records. The records are those of the connections' whole lives, in order, and the gaps."""

    def __init__(self) -> None:
        self.all: dict[str, _Connection] = {}
        self.open: dict[str, dict[str, _Connection]] = {}
        """Those of each chain that are open."""

    def add(self, record: Record) -> _Connection | None:
        """Read a record. Return the connection that it is about."""
        own = record.relay
        if own.unclean_end:  # the open connections of this log ended with their process
            for left in self.open.pop(own.chain.writer, {}).values():
                left.killed = record.at
        if record.event.action == Action.CONNECT_ACCEPTED:
            begun = self.all[own.connection.id] = _Connection(record)
            self.open.setdefault(own.chain.writer, {})[own.connection.id] = begun
        connection = self.all.get(own.connection.id) if own.connection.id else None
        if connection is not None and record.event.action in _REPORTS:
            connection.reported, connection.covered = record.at, own.since
            connection.reports += record.event.action == Action.CONNECTION_CHANNELS
            if record.event.action == Action.CONNECTION_CLOSED:
                connection.ended, connection.killed = record, ""
                self.open.get(own.chain.writer, {}).pop(own.connection.id, None)
        return connection


def unreported(records: Iterable[Record], about: str) -> list[Unreported]:
    """Return the connections of a session, user or token, or the one connection, that lack a part of their reports."""
    connections, found = _Connections(), []
    for record in records:
        connections.add(record)
    for name, one in connections.all.items():
        own = one.begun.relay
        if one.is_whole or about not in (own.session.ref, one.begun.user.id, own.token.jti, name):
            continue
        why = "lost" if one.ended else "killed" if one.killed else "open"
        since = one.begun.at if why == "lost" else one.reported or one.begun.at
        found.append(
            Unreported(connection=name, user=one.begun.user.id, since=since, until=one.until, why=why)
        )
    return found


def recipients(
    records: Iterable[Record], channel: str, messages: Sequence[Message], *, span: tuple[str, str] = ("", "~")
) -> list[Recipient]:
    """Return the connections that subscribed to a channel, and whether they were sent its messages.

    `was sent` means each of these messages. Of a span of time: those that were open then. The records are those of the
    connections' whole lives, and the gaps, in order.
    """
    connections, found = _Connections(), []

    def tell(name: str) -> None:
        """Add what is known of a connection, and forget it: a long log has more of them than memory has room for."""
        one = connections.all.pop(name)
        if one.may_have_it and one.begun.at <= span[1] and (not one.until or one.until > span[0]):
            found.append(_recipient(name, one, messages))

    for record in records:
        own, connection = record.relay, connections.add(record)
        if own.unclean_end:
            for name in [name for name, one in connections.all.items() if one.killed]:
                tell(name)
        elif record.event.action == Action.SUBSCRIPTIONS_AGGREGATED:
            for one in connections.open.get(own.chain.writer, {}).values():
                one.hidden |= Scope(one.begun.relay.token.channels).allows(channel)
        elif connection is not None:
            connection.read(record, channel)
            if connection.ended is not None:
                tell(own.connection.id)
    for name in list(connections.all):
        tell(name)
    return sorted(found, key=lambda one: one.since)


def _recipient(name: str, one: _Connection, messages: Sequence[Message]) -> Recipient:
    return Recipient(
        verdict=_together({_verdict(one, message) for message in messages}),
        user=one.begun.user.id,
        session=one.begun.relay.session.ref,
        address=one.begun.client.ip,
        connection=name,
        since=one.begun.at,
        until=one.until,
        killed=bool(one.killed),
    )


def _together(verdicts: set[Verdict]) -> Verdict:
    """Return the verdict on several epochs."""
    return verdicts.pop() if len(verdicts) == 1 else Verdict.PERHAPS


def _verdict(connection: _Connection, message: Message) -> Verdict:
    first, last = message.first, message.last
    rows = sorted((row for row in connection.rows if row.epoch == message.epoch), key=lambda row: row.first)
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
    if connection.until and connection.until < message.published:
        return Verdict.NOT
    if any(row.first <= last and row.last >= first for row in rows) or connection.perhaps:
        return Verdict.PERHAPS
    if connection.is_whole:
        return Verdict.NOT
    # What came after the last report is not known, but it has higher numbers. If it subscribed again, older messages
    # may come: they take long to a slow reader, and may be in two reports.
    is_past = (
        ended is None and newest > last and (not connection.again or connection.again < connection.covered)
    )
    return Verdict.NOT if is_past and not connection.hidden else Verdict.PERHAPS
