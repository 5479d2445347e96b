"""The connections of an endpoint at a moment."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from relay.audit.query.records import Record, iso
from relay.core.events import Action
from relay.core.scope import Scope


class Connected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    only_counted: bool
    """Subscriptions of its process were only counted while it was open, as a budget says. Some may be its own."""
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

    The oldest is the first. With `channel`: those that subscribed to it, and those that may have, because the records
    do not name all their channels.
    """
    last = iso(at)
    moment = last if since is None else iso(since)
    subscriptions: dict[str, _Subscriptions] = {}
    begun: dict[str, Record] = {}
    ended: dict[str, str] = {}
    killed: set[str] = set()
    floods: dict[str, list[tuple[str, str]]] = {}

    def end(connection: str, record: Record) -> None:
        if record.at <= moment:
            del begun[connection]
        else:
            ended[connection] = record.at

    for record in records:
        connection, writer = record.relay.connection.id, record.relay.chain.writer
        if record.event.action == Action.CONNECT_ACCEPTED:
            if record.relay.endpoint == endpoint and record.at <= last:
                begun[connection] = record
                _subscribe(subscriptions.setdefault(connection, _Subscriptions()), record)
        elif record.event.action == Action.SUBSCRIBE_ACCEPTED and connection in begun and record.at <= last:
            _subscribe(subscriptions[connection], record)
        elif record.event.action == Action.CONNECTION_CLOSED and connection in begun:
            end(connection, record)
        elif record.event.action == Action.SUBSCRIPTIONS_AGGREGATED:
            floods.setdefault(writer, []).append((record.at, record.relay.since))
        elif record.relay.unclean_end:  # the open connections of this log ended with their process
            left = {
                one for one, accepted in begun.items() if accepted.relay.chain.writer == writer
            } - ended.keys()
            for one in left:
                end(one, record)
            killed |= left
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
            only_counted=_was_flooded(floods, record, min(last, ended.get(connection, last))),
            killed=connection in killed,
        )
        for connection, record in begun.items()
    ]
    if channel is not None:
        found = [one for one in found if _may_have(one, channel)]
    return sorted(found, key=lambda one: one.since)  # the files of several chains come one after the other


def _was_flooded(floods: Mapping[str, Sequence[tuple[str, str]]], accepted: Record, end: str) -> bool:
    """Tell whether subscriptions were only counted between the begin of a connection and `end`.

    A flood is the time of its record, and the time since when it counted.
    """
    of_chain = floods.get(accepted.relay.chain.writer, ())
    first = bisect_left(of_chain, (accepted.at, ""))
    return first < len(of_chain) and of_chain[first][1] <= end


def _may_have(connection: Connected, channel: str) -> bool:
    """Tell whether a connection subscribed to a channel, or had it perhaps among those that are only counted."""
    is_hidden = connection.more > 0 or connection.only_counted
    return channel in connection.subscribed or (is_hidden and Scope(connection.channels).allows(channel))


def _subscribe(subscriptions: _Subscriptions, record: Record) -> None:
    channels = record.relay.channels
    subscriptions.named.update(dict.fromkeys(channels))
    subscriptions.more += max(0, record.relay.count - len(channels))
