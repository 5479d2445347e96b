"""Least privilege: what was granted and never used, and who would lose what under other grants."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from relay.audit.query.records import Record
from relay.core.events import Action
from relay.core.scope import Scope

Grants = Mapping[str, Mapping[str, Sequence[str]]]
"""Role -> endpoint -> patterns."""


@dataclass(slots=True)
class Grant:
    """One pattern that a role, or a user, was granted on an endpoint, and what was made of it."""

    whose: str
    endpoint: str
    scope: str
    tokens: int = 0
    users: set[str] = field(default_factory=set)
    connections: int = 0
    used_by: set[str] = field(default_factory=set)


def scopes(records: Iterable[Record], *, by_user: bool = False) -> list[Grant]:
    """Return each grant with how many tokens had it and how many connections used it; those never used come first.

    A session of several roles counts for each of them. A connection's use is known at its end.
    """
    grants: dict[tuple[str, str, str], Grant] = {}
    whose_token: dict[str, tuple[str, ...]] = {}
    for record in records:
        own = record.relay
        if record.event.action == Action.TOKEN_ISSUED:
            names = (record.user.id,) if by_user else own.session.roles or ("no role",)
            whose_token[own.token.jti] = names
            for name in names:
                for scope in own.token.channels:
                    grant = _grant(grants, name, own.endpoint, scope)
                    grant.tokens += 1
                    grant.users.add(record.user.id)
        elif record.event.action == Action.CONNECTION_CLOSED:
            # of a token that was issued before the span that is looked at the roles are not known
            names = (record.user.id,) if by_user else whose_token.get(own.token.jti, ("unknown",))
            for name in names:
                for scope in own.connection.scopes.used:
                    grant = _grant(grants, name, own.endpoint, scope)
                    grant.connections += 1
                    grant.used_by.add(record.user.id)
    return sorted(
        grants.values(), key=lambda grant: (bool(grant.connections), grant.whose, grant.endpoint, grant.scope)
    )


def _grant(grants: dict[tuple[str, str, str], Grant], whose: str, endpoint: str, scope: str) -> Grant:
    return grants.setdefault((whose, endpoint, scope), Grant(whose, endpoint, scope))


@dataclass(slots=True)
class Loss:
    """What a user would not have been granted: by how many tokens, and how many connections used it."""

    user: str
    roles: tuple[str, ...]
    endpoint: str
    scope: str
    tokens: int = 0
    connections: int = 0


def losses(records: Iterable[Record], candidate: Grants) -> list[Loss]:
    """Return what the tokens of the log would not have had under other grants; what was used comes first."""
    found: dict[tuple[str, tuple[str, ...], str, str], Loss] = {}
    lost_by: dict[str, dict[str, Loss]] = defaultdict(dict)
    allowed: dict[tuple[tuple[str, ...], str], Scope] = {}
    for record in records:
        own = record.relay
        if record.event.action == Action.TOKEN_ISSUED:
            roles = own.session.roles
            scope = allowed.get((roles, own.endpoint))
            if scope is None:
                patterns = [p for role in roles for p in candidate.get(role, {}).get(own.endpoint, ())]
                scope = allowed[roles, own.endpoint] = Scope(tuple(dict.fromkeys(patterns)))
            for name in scope.cut(own.token.channels)[1]:
                key = (record.user.id, roles, own.endpoint, name)
                loss = found.setdefault(key, Loss(record.user.id, roles, own.endpoint, name))
                loss.tokens += 1
                lost_by[own.token.jti][name] = loss
        elif record.event.action == Action.CONNECTION_CLOSED:
            for name in own.connection.scopes.used:
                if loss_used := lost_by.get(own.token.jti, {}).get(name):
                    loss_used.connections += 1
    return sorted(found.values(), key=lambda loss: (-loss.connections, loss.user, loss.endpoint, loss.scope))
