"""Who was connected to an endpoint at a moment."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from relay.audit.query.records import Record, iso
from relay.core.events import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """One connection: whose, since when, from where, by which token, and until when; "" if no end is in the log."""

    user: str
    address: str
    since: str
    until: str
    connection: str
    jti: str
    channels: tuple[str, ...]


def who(records: Iterable[Record], endpoint: str, *, at: datetime) -> list[Connected]:
    """Return the connections to an endpoint that were open at a moment, the oldest first.

    One without an end in the log was open when the log ends, or its relay was killed: `until` is "" for both.
    """
    moment = iso(at)
    begun: dict[str, Record] = {}
    ended: dict[str, str] = {}
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
    return [
        Connected(
            user=record.user.id,
            address=record.client.ip,
            since=record.at,
            until=ended.get(connection, ""),
            connection=connection,
            jti=record.relay.token.jti,
            channels=record.relay.token.channels,
        )
        for connection, record in begun.items()
    ]
