"""The connections of an endpoint at a moment."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from relay.audit.query.records import Record, iso
from relay.core.events import Action


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
    killed: bool


def connected_at(records: Iterable[Record], endpoint: str, *, at: datetime) -> list[Connected]:
    """Return the connections to an endpoint that were open at a moment, the oldest first."""
    moment = iso(at)
    begun: dict[str, Record] = {}
    ended: dict[str, str] = {}
    killed: set[str] = set()
    for record in records:
        connection = record.relay.connection.id
        if record.event.action == Action.CONNECT_ACCEPTED:
            if record.relay.endpoint == endpoint and record.at <= moment:
                begun[connection] = record
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
    return [
        Connected(
            user=record.user.id,
            address=record.client.ip,
            since=record.at,
            until=ended.get(connection, ""),
            connection=connection,
            jti=record.relay.token.jti,
            channels=record.relay.token.channels,
            killed=connection in killed,
        )
        for connection, record in begun.items()
    ]
