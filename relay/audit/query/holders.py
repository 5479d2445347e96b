"""Who holds which scope, now or in a span of time: with open connections, and tokens that can still be used."""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from relay.audit.query.records import Record, iso
from relay.core.events import Action

_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 1
"""The latest time, in Unix seconds. Only a forged record has a later one."""


class Holder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A scope that somebody holds: with a connection, or with a token that was not used yet.

    A token for another service stays valid until it expires: its use is in that service's log. Without `channels`, the
    scope is that service. `until` is when it ended, or when the token expires; "": the connection is open. `killed`:
    its relay ended without closing it, before `until`.
    """

    user: str
    session: str
    address: str
    endpoint: str
    channels: tuple[str, ...]
    how: str
    since: str
    until: str
    killed: bool
    connection: str
    jti: str


def holders(records: Iterable[Record], *, at: datetime, since: datetime | None = None) -> list[Holder]:
    """Return who holds a scope at a moment, or at any time from `since` on until then. The oldest is the first."""
    last = iso(at)
    held = _Held(first=last if since is None else iso(since), last=last)
    for record in records:
        held.add(record)
    return sorted(held.rest(), key=lambda one: (one.since, one.jti))


class _Held:
    """What is held while records are read, and what was held from `first` on and ended, if it began until `last`."""

    def __init__(self, *, first: str, last: str) -> None:
        self._first, self._last = first, last
        self._tokens: dict[str, Record] = {}
        self._of_session: dict[str, set[str]] = {}
        self._of_user: dict[str, set[str]] = {}
        """The tokens of a session and of a user: a log-out must not look at all."""
        self._open: dict[str, Record] = {}
        self._ended: list[Holder] = []

    def add(self, record: Record) -> None:
        """Read the next record."""
        own, begins = record.relay, record.at <= self._last
        match record.event.action:
            case Action.TOKEN_ISSUED if begins:
                self._tokens[own.token.jti] = record
                self._of_session.setdefault(own.session.ref, set()).add(own.token.jti)
                self._of_user.setdefault(record.user.id, set()).add(own.token.jti)
            case Action.CONNECT_ACCEPTED | Action.CONNECTION_REFRESHED:
                self._end_token(own.token.jti, record.at)
                self._end_connection(own.connection.id, record.at)
                if begins:
                    self._open[own.connection.id] = record
            case Action.CONNECTION_CLOSED:
                self._end_connection(own.connection.id, record.at)
            case Action.SESSION_REVOKED | Action.LOGOUT if not record.event.reason:
                for jti in self._revoked(record):
                    self._end_token(jti, record.at)
            case _ if own.unclean_end:  # the open connections of this log ended with their process
                writer = own.chain.writer
                for name in [name for name, one in self._open.items() if one.relay.chain.writer == writer]:
                    self._end_connection(name, record.at, killed=True)

    def rest(self) -> list[Holder]:
        """Return all that was held."""
        for jti in list(self._tokens):
            self._end_token(jti, "")
        return [*self._ended, *(_holder(one, "connection", "") for one in self._open.values())]

    def _revoked(self, record: Record) -> set[str]:
        own = record.relay
        match own.revoked:
            case "user":
                return self._of_user.pop(record.user.id, set())
            case "token":
                return {own.token.jti}
            case "key":
                return {jti for jti, one in self._tokens.items() if one.relay.token.kid == own.token.kid}
        return self._of_session.pop(own.session.ref, set())

    def _end_token(self, jti: str, at: str) -> None:
        """End a token at a time, "": when it expires."""
        record = self._tokens.pop(jti, None)
        if record is not None:
            expires = iso(datetime.fromtimestamp(max(0, min(record.relay.token.exp or 0, _LATEST)), UTC))
            until = min(at, expires) if at else expires
            if until > self._first:
                self._ended.append(_holder(record, "token", until))

    def _end_connection(self, name: str, at: str, *, killed: bool = False) -> None:
        record = self._open.pop(name, None)
        if record is not None and at > self._first:
            self._ended.append(_holder(record, "connection", at, killed=killed))


def _holder(record: Record, how: str, until: str, *, killed: bool = False) -> Holder:
    own = record.relay
    return Holder(
        user=record.user.id,
        session=own.session.ref,
        address=record.client.ip,
        endpoint=own.endpoint,
        channels=own.token.channels,
        how=how,
        since=record.at,
        until=until,
        killed=killed,
        connection=own.connection.id if how == "connection" else "",
        jti=own.token.jti,
    )
