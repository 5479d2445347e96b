"""Who holds which scope at a moment: the open connections, and the tokens that can still be used."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from relay.audit.query.records import Record, iso
from relay.core.events import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A scope that somebody holds: with a connection, or with a token that was not used yet.

    A token for another service stays valid until it expires: its use is in that service's log. Without `channels`, the
    scope is that service.
    """

    user: str
    session: str
    address: str
    endpoint: str
    channels: tuple[str, ...]
    how: str
    since: str
    connection: str
    jti: str


def holders(records: Iterable[Record], *, at: datetime) -> list[Holder]:
    """Return who holds a scope at a moment. The oldest is the first."""
    last, now = iso(at), at.timestamp()
    tokens: dict[str, Record] = {}
    open_: dict[str, Record] = {}
    for record in records:
        own = record.relay
        if record.at > last:
            continue
        match record.event.action:
            case Action.TOKEN_ISSUED:
                tokens[own.token.jti] = record
            case Action.CONNECT_ACCEPTED | Action.CONNECTION_REFRESHED:
                tokens.pop(own.token.jti, None)
                open_.pop(own.connection.id, None)
                open_[own.connection.id] = record
            case Action.CONNECTION_CLOSED:
                open_.pop(own.connection.id, None)
            case Action.SESSION_REVOKED | Action.LOGOUT if not record.event.reason:
                tokens = {jti: one for jti, one in tokens.items() if not _revokes(record, one)}
            case _ if own.unclean_end:  # the open connections of this log ended with their process
                writer = own.chain.writer
                open_ = {name: one for name, one in open_.items() if one.relay.chain.writer != writer}
    unused = [one for one in tokens.values() if (one.relay.token.exp or 0) > now]
    found = [
        *(_holder(one, "connection") for one in open_.values()),
        *(_holder(one, "token") for one in unused),
    ]
    return sorted(found, key=lambda one: one.since)


def _revokes(record: Record, token: Record) -> bool:
    own, of = record.relay, token.relay
    match own.revoked:
        case "user":
            return record.user.id == token.user.id
        case "token":
            return own.token.jti == of.token.jti
        case "key":
            return own.token.kid == of.token.kid
    return own.session.ref == of.session.ref


def _holder(record: Record, how: str) -> Holder:
    own = record.relay
    return Holder(
        user=record.user.id,
        session=own.session.ref,
        address=record.client.ip,
        endpoint=own.endpoint,
        channels=own.token.channels,
        how=how,
        since=record.at,
        connection=own.connection.id if how == "connection" else "",
        jti=own.token.jti,
    )
