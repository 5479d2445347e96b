"""Least privilege: grants that were never used, and what users would lose under other grants.

DuckDB joins the uses of tokens with the tokens, whatever the order of the files, and counts tokens that had and used
the same. How patterns cover channels is told by `relay.core.scope`, once for each different pair of a token's scope
and a channel.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from relay.audit.index.database import Index
from relay.core.scope import Scope

Grants = Mapping[str, Mapping[str, Sequence[str]]]
"""Role -> endpoint -> patterns. A service has no patterns: its name is the grant."""

SERVICE = "(service)"
"""The scope of a token for another service, which has no channels. Its use is in that service's log."""

KINDS = """
    CREATE OR REPLACE TEMP TABLE kinds AS
    SELECT kind, any_value(endpoint) AS endpoint, any_value(roles) AS roles, any_value(scope) AS scope,
        any_value(granted) AS granted
    FROM kinds_of_parts GROUP BY kind;
    CREATE OR REPLACE TEMP TABLE uses AS
    SELECT use, any_value(endpoint) AS endpoint, any_value(user_id) AS user_id, any_value(names) AS names,
        any_value(is_told) AS is_told, any_value(is_cut) AS is_cut
    FROM uses_of_parts GROUP BY use"""
"""What the numbers of tokens and uses stand for: a number is joined and counted faster than lists of texts."""

_TOKENS = """
    CREATE OR REPLACE TEMP TABLE tokens AS
    SELECT user_id, kind, sum(tokens)::BIGINT AS tokens FROM spanned_tokens GROUP BY user_id, kind"""
"""How many tokens of each kind a user had."""

_SPLIT = """
    CREATE OR REPLACE TEMP TABLE split AS
    SELECT jti_key, max(uses) AS uses FROM spanned_stories GROUP BY jti_key HAVING count(*) > 1 OR max(uses) > 2"""
"""Tokens with records in several files of the log, or with more uses than a story has."""

_COMBINED = """
    CREATE OR REPLACE TEMP TABLE combined AS
    SELECT *, row_number() OVER () AS number FROM (
        SELECT holder, kind, [one, other] AS uses, tokens FROM (
            SELECT {holder} AS holder, kind, one, other, count(*) AS tokens
            FROM spanned_stories ANTI JOIN split USING (jti_key) WHERE one IS NOT NULL GROUP BY ALL
        )
        UNION ALL
        SELECT holder, kind, uses, count(*) FROM (
            SELECT jti_key, arg_max({holder}, place) AS holder, arg_max(kind, place) AS kind
            FROM spanned_stories SEMI JOIN split USING (jti_key) GROUP BY jti_key
        ) JOIN (
            SELECT jti_key, list_sort(list(DISTINCT use)) AS uses FROM ({uses}) SEMI JOIN split USING (jti_key)
            GROUP BY jti_key
        ) USING (jti_key) GROUP BY ALL
    );
    CREATE OR REPLACE TEMP TABLE combined_uses AS
    SELECT number, holder, kind, tokens, uses.*
    FROM (SELECT * EXCLUDE (uses), unnest(list_distinct(uses)) AS use FROM combined) JOIN uses USING (use)"""
"""How many tokens (`combined`) were of the same kind and used in the same way, and what these uses are.

The kind is that of the last token with the id.
"""

_OF_STORIES = "SELECT jti_key, unnest([one, other]) AS use FROM spanned_stories WHERE one IS NOT NULL"
_OF_RECORDS = "SELECT jti_key, use_key AS use FROM spanned_keys WHERE use_key != 0"

NAMES_BY_ROLE = f"""coalesce(
    CASE WHEN granted = '' THEN NULL ELSE list_filter(
        from_json(granted, '[{{"channel": "VARCHAR", "roles": ["VARCHAR"]}}]'),
        lambda one: coalesce(nullif(one.channel, ''), '{SERVICE}') = name AND len(one.roles) > 0
    )[-1].roles END,
    CASE WHEN roles IS NULL THEN ['unknown'] WHEN len(roles) = 0 THEN ['no role'] ELSE roles END
)"""
"""To whom a grant belongs: the roles that granted it, or all of the session. No roles: its token is not in the span."""

_GRANTED = """
    SELECT whose, endpoint, name, sum(tokens)::BIGINT AS tokens, count(DISTINCT user_id) AS users FROM (
        SELECT unnest({names}) AS whose, endpoint, name, user_id, tokens FROM (
            SELECT user_id, endpoint, roles, granted, tokens,
                unnest(CASE WHEN len(scope) = 0 THEN ['{service}'] ELSE scope END) AS name
            FROM tokens JOIN kinds USING (kind)
        )
    ) GROUP BY ALL"""

_USED = """
    SELECT whose, endpoint, name, sum(connections)::BIGINT AS connections, count(DISTINCT user_id) AS used_by FROM (
        SELECT unnest({names}) AS whose, used.endpoint, name, user_id, connections FROM (
            SELECT user_id, endpoint, kind, name, sum(tokens) AS connections FROM (
                SELECT name, any_value(endpoint) AS endpoint, any_value(user_id) AS user_id, any_value(kind) AS kind,
                    any_value(tokens) AS tokens
                FROM (
                    SELECT number, pattern AS name, endpoint, user_id, kind, tokens
                    FROM (SELECT *, unnest(names) AS name FROM combined_uses WHERE NOT is_told)
                    JOIN narrowest USING (kind, name)
                    UNION ALL
                    SELECT number, unnest(names), endpoint, user_id, kind, tokens FROM combined_uses WHERE is_told
                ) GROUP BY number, name
            ) GROUP BY ALL
        ) AS used LEFT JOIN kinds ON kinds.kind = used.kind
    ) GROUP BY ALL"""


class GrantUse(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A pattern that a role or a user was granted on an endpoint, and how often it was used.

    `users` had it and `used_by` of them used it.
    """

    whose: str
    endpoint: str
    scope: str
    tokens: int
    users: int
    connections: int
    used_by: int


def _combine(index: Index, *, holder: str = "NULL") -> None:
    """Make the tables `kinds`, `uses`, `tokens` and `combined_uses`."""
    index.execute(KINDS)
    index.execute(_TOKENS)
    index.execute(_SPLIT)
    ((most,),) = index.rows("SELECT coalesce(max(uses), 0) FROM split")
    index.execute(_COMBINED.format(holder=holder, uses=_OF_STORIES if most <= 2 else _OF_RECORDS))


def load_narrowest(index: Index, channels: str) -> None:
    """Make the table `narrowest`: the patterns that granted the channels of subscriptions.

    `channels` is a query for the `kind` of a token and the `name` of a channel. It needs the table `kinds`.
    """
    pairs = index.rows(f"SELECT kind, scope, name FROM ({channels}) JOIN kinds USING (kind)")
    index.load_table(
        "narrowest",
        {"kind": "UBIGINT", "name": "VARCHAR", "pattern": "VARCHAR"},
        [
            (kind, channel, pattern)
            for kind, scope, channel in pairs
            for pattern in Scope(tuple(scope)).narrowest(channel)
        ],
    )


def grant_uses(index: Index, *, by_user: bool = False) -> list[GrantUse]:
    """Return each grant with the number of tokens that had it and of connections that used it. Unused ones come first.

    If a session has several roles, those that grant the pattern count. A connection uses a grant when it subscribes,
    so that open connections count too.
    """
    _combine(index)
    load_narrowest(index, "SELECT DISTINCT kind, unnest(names) AS name FROM combined_uses WHERE NOT is_told")
    names = "[user_id]" if by_user else NAMES_BY_ROLE
    rows = index.rows(
        f"SELECT whose, endpoint, name, coalesce(tokens, 0), coalesce(users, 0), coalesce(connections, 0), "
        f"coalesce(used_by, 0) FROM ({_GRANTED.format(names=names, service=SERVICE)}) "
        f"FULL JOIN ({_USED.format(names=names)}) USING (whose, endpoint, name)"
    )
    found = [
        GrantUse(
            whose=whose,
            endpoint=endpoint,
            scope=scope,
            tokens=tokens,
            users=users,
            connections=connections,
            used_by=used_by,
        )
        for whose, endpoint, scope, tokens, users, connections, used_by in rows
    ]
    return sorted(
        found, key=lambda grant: (bool(grant.connections), grant.whose, grant.endpoint, grant.scope)
    )


class LostGrant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A pattern that a user would lose: how many tokens had it, and how many connections would miss it.

    A pattern that would be granted in part is lost for the tokens, and for the connections that subscribed to a channel
    outside that part. `missed` are those channels.
    """

    user: str
    roles: tuple[str, ...]
    endpoint: str
    scope: str
    tokens: int
    connections: int
    missed: tuple[str, ...]


def lost_grants(index: Index, candidate: Grants) -> list[LostGrant]:
    """Return the patterns that the log's tokens would not have had under other grants. Used ones come first."""
    grants = _Candidate(candidate)
    _combine(index, holder="holder")
    kinds = index.rows("SELECT kind, roles, endpoint, scope FROM kinds")
    index.load_table(
        "lost",
        {"kind": "UBIGINT", "patterns": "VARCHAR[]"},
        [(kind, lost) for kind, *of in kinds if (lost := grants.lost(*of))],
    )
    pairs = index.rows(
        "SELECT kind, roles, kinds.endpoint, scope, patterns, channel FROM ("
        "SELECT DISTINCT kind, unnest(names) AS channel FROM combined_uses WHERE NOT is_told"
        ") JOIN kinds USING (kind) JOIN lost USING (kind)"
    )
    index.load_table(
        "missed",
        {"kind": "UBIGINT", "channel": "VARCHAR", "pattern": "VARCHAR"},
        [
            (kind, channel, pattern)
            for kind, roles, endpoint, scope, patterns, channel in pairs
            if not grants.scope(roles, endpoint).allows(channel)
            for pattern in Scope(tuple(scope)).narrowest(channel)
            if pattern in patterns
        ],
    )
    rows = index.rows(
        """
        SELECT user_id, roles, endpoint, pattern, sum(tokens)::BIGINT, coalesce(sum(connections), 0)::BIGINT,
            list_sort(list_distinct(flatten(list(coalesce(channels, []))))) FROM (
            SELECT user_id, kind, tokens, unnest(patterns) AS pattern FROM tokens JOIN lost USING (kind)
        ) LEFT JOIN (
            SELECT user_id, kind, pattern, sum(tokens) AS connections, flatten(list(channels)) AS channels FROM (
                SELECT any_value(holder) AS user_id, kind, pattern, any_value(tokens) AS tokens,
                    list(DISTINCT channel) AS channels
                FROM (
                    SELECT number, holder, kind, tokens, pattern, channel
                    FROM (SELECT *, unnest(names) AS channel FROM combined_uses WHERE NOT is_told)
                    JOIN missed USING (kind, channel)
                    UNION ALL -- the record does not have all channels: count every lost pattern
                    SELECT number, holder, kind, tokens, unnest(patterns) AS pattern, pattern
                    FROM combined_uses JOIN lost USING (kind) WHERE is_cut
                ) GROUP BY number, kind, pattern
            ) GROUP BY ALL
        ) USING (user_id, kind, pattern) JOIN kinds USING (kind) GROUP BY user_id, roles, endpoint, pattern"""
    )
    found = [
        LostGrant(
            user=user,
            roles=tuple(roles),
            endpoint=endpoint,
            scope=scope,
            tokens=tokens,
            connections=connections,
            missed=tuple(missed),
        )
        for user, roles, endpoint, scope, tokens, connections, missed in rows
    ]
    return sorted(found, key=lambda loss: (-loss.connections, loss.user, loss.endpoint, loss.scope))


class _Candidate:
    """The candidate grants."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def lost(self, roles: Sequence[str], endpoint: str, scope: Iterable[str]) -> tuple[str, ...]:
        """Return what a token would not have had."""
        patterns = tuple(scope)
        if not patterns and not any(endpoint in self._grants.get(role, {}) for role in roles):
            return (SERVICE,)
        return self.scope(roles, endpoint).split(patterns)[1]

    def scope(self, roles: Sequence[str], endpoint: str) -> Scope:
        """Return what these roles together would be granted."""
        patterns = [p for role in roles for p in self._grants.get(role, {}).get(endpoint, ())]
        return Scope(tuple(dict.fromkeys(patterns)))
