"""The connections of an endpoint at a moment."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from relay.audit.query.records import Record, iso
from relay.core.events import Action
from relay.core.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """One connection. `until` is "" if it is open when the log ends.

    `killed`: its relay ended without closing it. `until` is then the time when the next relay opened the log.
    """

    user: str
    address: str
    since: str
    until: str
    connection: str
    jti: str
    channels: tuple[str, ...]
    subscribed: tuple[str, ...]
    """The channels that its records name. `more` of them are only counted there."""
    more: int
    killed: bool


@dataclass(slots=True)
class _Subscriptions:
    """The channels of a connection that its records name before the span ends, and how many others it had."""

    named: dict[str, None] = field(default_factory=dict)
    more: int = 0


def connected_at(
    records: Iterable[Record],
    endpoint: str,
    *,
    at: datetime,
    since: datetime | None = None,
    channel: str | None = None,
) -> list[Connected]:
    """Return the connections to an endpoint that were open at a moment, or at any time from `since` on until then.

    The oldest is the first. With `channel`: those that subscribed to it, and those that may have, because their records
    do not name all their channels.
    """
    last = iso(at)
    moment = last if since is None else iso(since)
    subscriptions: dict[str, _Subscriptions] = {}
    begun: dict[str, Record] = {}
    ended: dict[str, str] = {}
    killed: set[str] = set()
    for record in records:
        connection = record.relay.connection.id
        if record.event.action == Action.CONNECT_ACCEPTED:
            if record.relay.endpoint == endpoint and record.at <= last:
                begun[connection] = record
                _subscribe(subscriptions.setdefault(connection, _Subscriptions()), record)
        elif record.event.action == Action.SUBSCRIBE_ACCEPTED:
            if connection in begun and record.at <= last:
                _subscribe(subscriptions[connection], record)
        elif record.event.action == Action.CONNECTION_CLOSED and connection in begun:
            if record.at <= moment:
                del begun[connection]
            else:
                ended[connection] = record.at
        elif record.relay.unclean_end:  # the open connections of this log ended with their process
            writer = record.relay.chain.writer
            for left in [one for one, open_ in begun.items() if open_.relay.chain.writer == writer]:
                if record.at <= moment:
                    del begun[left]
                elif left not in ended:
                    ended[left] = record.at
                    killed.add(left)
    found = [
        Connected(
            user=record.user.id,
            address=record.client.ip,
            since=record.at,
            until=ended.get(connection, ""),
            connection=connection,
            jti=record.relay.token.jti,
            channels=record.relay.token.channels,
            subscribed=tuple(subscriptions[connection].named),
            more=subscriptions[connection].more,
            killed=connection in killed,
        )
        for connection, record in begun.items()
        if channel is None or _may_have(subscriptions[connection], channel, record.relay.token.channels)
    ]
    return sorted(found, key=lambda one: one.since)  # the files of several chains come one after the other


def _may_have(subscriptions: _Subscriptions, channel: str, granted: tuple[str, ...]) -> bool:
    """Tell whether a connection subscribed to a channel, or had it perhaps among those that are only counted."""
    return channel in subscriptions.named or (subscriptions.more > 0 and Scope(granted).allows(channel))


def _subscribe(subscriptions: _Subscriptions, record: Record) -> None:
    channels = record.relay.channels
    subscriptions.named.update(dict.fromkeys(channels))
    subscriptions.more += max(0, record.relay.count - len(channels))
