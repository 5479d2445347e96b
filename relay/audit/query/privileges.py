"""Least privilege: grants that were never used, and what users would lose under other grants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from relay.audit.query.records import Record
from relay.core.events import SUBSCRIBE_ACTIONS, Action
from relay.core.scope import Scope

Grants = Mapping[str, Mapping[str, Sequence[str]]]
"""Role -> endpoint -> patterns. A service has no patterns: its name is the grant."""

SERVICE = "(service)"
"""The scope of a token for another service, which has no channels. Its use is in that service's log."""


@dataclass(slots=True)
class GrantUse:
    """A pattern that a role or a user was granted on an endpoint, and how often it was used."""

    whose: str
    endpoint: str
    scope: str
    tokens: int = 0
    users: set[str] = field(default_factory=set)
    connections: int = 0
    used_by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Token:
    """The facts about a token that are kept until its connection ends."""

    names: tuple[str, ...]
    scope: Scope
    by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The names that each grant belongs to. A grant without an entry belongs to all."""
    lost: dict[str, "LostGrant"] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


def grant_uses(records: Iterable[Record], *, by_user: bool = False) -> list[GrantUse]:
    """Return each grant with the number of tokens that had it and of connections that used it. Unused ones come first.

    If a session has several roles, those that grant the pattern count. A connection uses a grant when it subscribes,
    so that open connections count too.
    """
    grants: dict[tuple[str, str, str], GrantUse] = {}
    tokens: dict[str, _Token] = {}
    for record in records:
        own = record.relay
        action = record.event.action
        if action == Action.TOKEN_ISSUED:
            names = (record.user.id,) if by_user else own.session.roles or ("no role",)
            by = {} if by_user else {one.channel or SERVICE: one.roles for one in own.granted if one.roles}
            tokens[own.token.jti] = _Token(names, Scope(own.token.channels), by)
            for scope in own.token.channels or (SERVICE,):
                for name in by.get(scope, names):
                    grant = _grant(grants, name, own.endpoint, scope)
                    grant.tokens += 1
                    grant.users.add(record.user.id)
        elif action in SUBSCRIBE_ACTIONS or action == Action.CONNECTION_CLOSED:
            token = tokens.get(own.token.jti)
            if token is None:  # issued before the span of time, so its roles are unknown
                names = (record.user.id,) if by_user else ("unknown",)
                token = tokens[own.token.jti] = _Token(names, Scope(()))
            for scope in _used(record, token.scope):
                if scope in token.used:
                    continue
                token.used.add(scope)
                for name in token.by.get(scope, token.names):
                    grant = _grant(grants, name, own.endpoint, scope)
                    grant.connections += 1
                    grant.used_by.add(record.user.id)
            if action == Action.CONNECTION_CLOSED:
                del tokens[own.token.jti]
    return sorted(
        grants.values(), key=lambda grant: (bool(grant.connections), grant.whose, grant.endpoint, grant.scope)
    )


def _used(record: Record, scope: Scope) -> set[str]:
    """Return the grants that were used, as the record says."""
    if record.event.action == Action.CONNECTION_CLOSED:
        return set(record.relay.connection.scopes.used)
    return {pattern for name in record.relay.channels for pattern in scope.narrowest(name)}


def _grant(grants: dict[tuple[str, str, str], GrantUse], whose: str, endpoint: str, scope: str) -> GrantUse:
    return grants.setdefault((whose, endpoint, scope), GrantUse(whose, endpoint, scope))


@dataclass(slots=True)
class LostGrant:
    """A pattern that a user would lose: how many tokens had it, and how many connections would miss it.

    A pattern that would be granted in part is lost for the tokens, and for the connections that subscribed to a channel
    outside that part. `missed` are those channels.
    """

    user: str
    roles: tuple[str, ...]
    endpoint: str
    scope: str
    tokens: int = 0
    connections: int = 0
    missed: set[str] = field(default_factory=set)


def lost_grants(records: Iterable[Record], candidate: Grants) -> list[LostGrant]:
    """Return the patterns that the log's tokens would not have had under other grants. Used ones come first."""
    changed = _Candidate(candidate)
    for record in records:
        action = record.event.action
        if action == Action.TOKEN_ISSUED:
            changed.issued(record)
        elif action in SUBSCRIBE_ACTIONS:
            changed.subscribed(record)
        elif action == Action.CONNECTION_CLOSED:
            changed.closed(record)
    return sorted(changed.found, key=lambda loss: (-loss.connections, loss.user, loss.endpoint, loss.scope))


class _Candidate:
    """The log's events under the candidate grants."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants
        self._found: dict[tuple[str, tuple[str, ...], str, str], LostGrant] = {}
        self._tokens: dict[str, _Token] = {}
        """The tokens that would have had less."""
        self._scopes: dict[tuple[tuple[str, ...], str], Scope] = {}

    @property
    def found(self) -> Iterable[LostGrant]:
        """The lost patterns."""
        return self._found.values()

    def issued(self, record: Record) -> None:
        """Compare the grants of a token with those that it would have had."""
        own, roles = record.relay, record.relay.session.roles
        lost = self._scope(roles, own.endpoint).split(own.token.channels)[1]
        if not own.token.channels and not any(own.endpoint in self._grants.get(role, {}) for role in roles):
            lost = (SERVICE,)
        token = _Token(roles, Scope(own.token.channels))
        for name in lost:
            key = (record.user.id, roles, own.endpoint, name)
            token.lost[name] = self._found.setdefault(
                key, LostGrant(record.user.id, roles, own.endpoint, name)
            )
            token.lost[name].tokens += 1
        if lost:
            self._tokens[own.token.jti] = token

    def subscribed(self, record: Record) -> None:
        """Find the channels that a connection would have missed."""
        own = record.relay
        token = self._tokens.get(own.token.jti)
        if token is None:
            return
        scope = self._scope(token.names, own.endpoint)
        for channel in own.channels:
            if not scope.allows(channel):
                for pattern in token.scope.narrowest(channel):
                    _miss(token, pattern, channel)
        if own.count > len(own.channels):  # the record does not have all channels: count every lost pattern
            for pattern in token.lost:
                _miss(token, pattern, pattern)

    def closed(self, record: Record) -> None:
        """Forget a token whose connection has ended."""
        self._tokens.pop(record.relay.token.jti, None)

    def _scope(self, roles: tuple[str, ...], endpoint: str) -> Scope:
        scope = self._scopes.get((roles, endpoint))
        if scope is None:
            patterns = [p for role in roles for p in self._grants.get(role, {}).get(endpoint, ())]
            scope = self._scopes[roles, endpoint] = Scope(tuple(dict.fromkeys(patterns)))
        return scope


def _miss(token: _Token, pattern: str, channel: str) -> None:
    if loss := token.lost.get(pattern):
        loss.missed.add(channel)
        loss.connections += pattern not in token.used
        token.used.add(pattern)
