"""The views that `relay audit sql` asks: what each one and each of its columns means, and how it is made of the index.

The names are an interface: queries of others use them. A new column may be added; none changes its meaning.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from relay.audit.index.copies import COPIES, Copied
from relay.audit.index.sheets import NEVER, PLACE, no_rows, text_of, whole
from relay.core.events import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view: what a row is, what its columns are, and the query that makes it of `lines`, which has these copies."""

    row: str
    columns: dict[str, str]
    copies: tuple[str, ...] = ("rare",)
    query: str


_GRANTS_JSON = '[{"channel": "VARCHAR", "roles": ["VARCHAR"]}]'
_PUBLICATIONS_JSON = (
    '[{"channel": "VARCHAR", "epoch": "VARCHAR", "first": "BIGINT", "last": "BIGINT", "count": "BIGINT", '
    '"bytes": "BIGINT", "dropped": "BIGINT", "alive": "BIGINT"}]'
)


def published_rows(lines: str) -> str:
    """Return the query for the rows of the summaries of some lines. Their times are those of the records."""
    return f"""
        SELECT place, since, moment AS "until", publisher, address, coalesce(one.channel, '') AS channel,
            coalesce(one.epoch, '') AS epoch, coalesce(one.first, 0) AS first, coalesce(one.last, 0) AS last,
            coalesce(one.count, 0) AS "count", coalesce(one.bytes, 0) AS bytes, coalesce(one.dropped, 0) AS dropped,
            coalesce(one.alive, 0) AS alive
        FROM (
            SELECT *, unnest(from_json(published, '{_PUBLICATIONS_JSON}')) AS one FROM {lines}
            WHERE action = '{Action.PUBLISH_SUMMARY}' AND published != ''
        )"""


_OF_TOKENS = ("rare", "issued", "accepted", "refreshed")
_ENDS = f"""
    SELECT begun.connection_key, ended.used, ended.moment IS NULL AND killed.moment IS NULL AS is_open
    FROM (
        SELECT connection_key, writer, place FROM lines
        WHERE action = '{Action.CONNECT_ACCEPTED}' AND connection != ''
    ) AS begun
    LEFT JOIN (
        SELECT connection_key, min(moment) AS moment, any_value(used) AS used
        FROM lines WHERE action = '{Action.CONNECTION_CLOSED}' GROUP BY connection_key
    ) AS ended ON ended.connection_key = begun.connection_key
    ASOF LEFT JOIN unclean_ends AS killed
        ON killed.writer = begun.writer AND begun.place < killed.place"""
"""The query for what `grants` needs of connections: what each one used, and whether it is open."""


VIEWS = {
    "tokens": View(
        row="a scoped token that was issued",
        columns={
            "at": "when, in UTC",
            "jti": "its id",
            "user": "whose",
            "session": "the session's reference",
            "roles": "the session's roles",
            "endpoint": "where it is valid",
            "scope": "the channels and patterns that it grants; a service has none",
            "asked": "the channels that were requested; empty: all that is granted",
            "rejected": "the channels that were requested and refused",
            "expires": "when it expires",
            "address": "the client's address",
            "origin": "the browser's origin",
            "user_agent": "the client's User-Agent",
            "used_at": "when it was used up; NULL: never",
            "connection": "the connection that used it",
        },
        copies=_OF_TOKENS,
        query=f"""
            SELECT issued.moment AS at, issued.jti, issued.user_id AS "user", issued.session,
                issued.roles, issued.endpoint, issued.scope, issued.asked, issued.rejected,
                make_timestamp((issued.expires * 1000000)::BIGINT) AS expires, issued.address, issued.origin,
                issued.user_agent, used.moment AS used_at, used.connection, issued.jti_key,
                used.connection_key
            FROM lines AS issued LEFT JOIN (
                SELECT jti_key, min(moment) AS moment, arg_min(connection, place) AS connection,
                    arg_min(connection_key, place) AS connection_key
                FROM lines
                WHERE action IN ('{Action.CONNECT_ACCEPTED}', '{Action.CONNECTION_REFRESHED}') AND jti_key != hash('')
                GROUP BY jti_key
            ) AS used ON used.jti_key = issued.jti_key
            WHERE issued.action = '{Action.TOKEN_ISSUED}'""",
    ),
    "connections": View(
        row="a connection that was accepted",
        columns={
            "connection": "its id",
            "jti": "the token that opened it",
            "user": "whose",
            "endpoint": "to which endpoint",
            "address": "the client's address",
            "user_agent": "the client's User-Agent",
            "transport": "how the token was sent",
            "since": "when it was accepted, in UTC",
            "until": "when it ended; if its relay was killed: its next start, else now; NULL: it is open",
            "reason": "why it ended",
            "killed": "whether its relay ended without closing it",
            "initiator": "which side ended it",
            "close_code": "the close code",
            "duration_ms": "how long it lasted",
            "messages_out": "messages that it was sent",
            "channels": "the channels that its records name, in their order",
            "used": "the grants that it used; NULL: it has not ended",
            "unused": "the grants that it did not use",
        },
        copies=("rare", "accepted", "subscribed", "closed"),
        query=f"""
            SELECT begun.connection, begun.jti, begun.user_id AS "user", begun.endpoint, begun.address,
                begun.user_agent, begun.transport, begun.moment AS since,
                coalesce(ended.moment, killed.moment) AS until, ended.reason,
                ended.moment IS NULL AND killed.moment IS NOT NULL AS killed, ended.initiator, ended.close_code,
                ended.duration_ms, ended.messages_out,
                list_distinct(begun.channels || coalesce(later.channels, [])) AS channels, ended.used, ended.unused
            FROM (SELECT * FROM lines WHERE action = '{Action.CONNECT_ACCEPTED}' AND connection != '') AS begun
            LEFT JOIN (
                SELECT connection_key, min(moment) AS moment, any_value(reason) AS reason,
                    any_value(initiator) AS initiator, any_value(close_code) AS close_code,
                    any_value(duration_ms) AS duration_ms,
                    any_value(messages_out) AS messages_out, any_value(used) AS used, any_value(unused) AS unused
                FROM lines WHERE action = '{Action.CONNECTION_CLOSED}' GROUP BY connection_key
            ) AS ended ON ended.connection_key = begun.connection_key
            LEFT JOIN (
                SELECT connection_key, flatten(list(channels ORDER BY place)) AS channels
                FROM lines WHERE action = '{Action.SUBSCRIBE_ACCEPTED}' GROUP BY connection_key
            ) AS later ON later.connection_key = begun.connection_key
            ASOF LEFT JOIN unclean_ends AS killed
                ON killed.writer = begun.writer AND begun.place < killed.place""",
    ),
    "grants": View(
        row="a channel or pattern of a token",
        columns={
            "at": "when the token was issued, in UTC",
            "jti": "the token",
            "user": "who has it",
            "session": "the session's reference",
            "roles": "the roles that granted it",
            "endpoint": "where",
            "scope": "the channel or pattern; '(service)' for a token of another service",
            "expires": "when the token expires",
            "connection": "the connection that used the token",
            "used": "whether that connection used this grant; NULL: it is open, or the token was not used",
            "held": "whether it holds when the log ends: the connection is open, or the token can still be used",
        },
        copies=(*_OF_TOKENS, "closed"),
        query=f"""
            SELECT "at", jti, "user", session, coalesce(list_filter(
                    from_json(nullif(granted, ''), '{_GRANTS_JSON}'),
                    lambda one: coalesce(nullif(one.channel, ''), '(service)') = name
                )[-1].roles, roles) AS roles, endpoint, name AS scope, expires,
                connection, list_contains(names_used, name) AS used, held
            FROM (
                SELECT *, unnest(CASE WHEN len(scope) = 0 THEN ['(service)'] ELSE scope END) AS name
                FROM (
                    SELECT token.*, granted.granted, opened.used AS names_used,
                        CASE WHEN token.used_at IS NULL THEN coalesce(token.expires > newest.at, false)
                            ELSE opened.is_open IS TRUE END AS held
                    FROM keyed_tokens AS token
                    LEFT JOIN (
                        SELECT jti_key, any_value(granted) AS granted FROM lines WHERE granted != '' GROUP BY jti_key
                    ) AS granted ON granted.jti_key = token.jti_key
                    LEFT JOIN ({_ENDS}) AS opened ON opened.connection_key = token.connection_key
                    CROSS JOIN newest
                )
            )""",
    ),
    "denials": View(
        row="something that was refused: a request, a connection, a call, or a channel of a request",
        columns={
            "at": "when, in UTC",
            "action": "what was refused; token.issued: a channel that the token did not get",
            "reason": "why",
            "detail": "more about it",
            "user": "who, as a signature or key proves it",
            "session": "the session's reference",
            "address": "the client's address",
            "origin": "the browser's origin",
            "endpoint": "where",
            "jti": "the token",
            "connection": "the connection",
            "channels": "the channels",
            "count": "how many refusals the record stands for",
            "marks": "the anomaly marks",
            "publisher": "the publisher",
            "operator": "the operator",
            "claimed_user": "the user that the credential claims; nothing proves it",
            "claimed_jti": "the token that it claims",
            "claimed_name": "the publisher or operator that it claims",
        },
        query=f"""
            SELECT moment AS at, action, reason, detail, user_id AS "user", session, address, origin,
                endpoint, jti, connection, channels, greatest("count", 1) AS "count", marks, publisher, operator,
                claimed_user, claimed_jti, claimed_name
            FROM lines WHERE outcome = 'failure' AND action != '{Action.AUDIT_GAP}'
            UNION ALL
            SELECT moment, action, why, '', user_id, session, address, origin, endpoint, jti, '',
                [channel], 1, marks, '', '', '', '', ''
            FROM (
                SELECT *, unnest(rejected) AS channel, unnest(rejected_reasons) AS why FROM lines
                WHERE action = '{Action.TOKEN_ISSUED}' AND len(rejected) > 0
            )""",
    ),
    "publications": View(
        row="what a publisher published on a channel in a minute",
        columns={
            "since": "the first moment of it, in UTC",
            "until": "the last",
            "publisher": "who",
            "address": "from where",
            "channel": "where; '': publications that have no row, which may have been on any channel",
            "epoch": "the epoch of the channel",
            "first": "the first number in it",
            "last": "the last number",
            "count": "how many",
            "bytes": "how long together",
            "dropped": "how many were dropped as stale or repeated",
            "alive": "how many said only that the value still holds",
        },
        query=f"""
            SELECT try_cast(since AS TIMESTAMP) AS since, "until", publisher, address, channel,
                epoch, first, last, "count", bytes, dropped, alive
            FROM ({published_rows("lines")})""",
    ),
    "sessions": View(
        row="a session",
        columns={
            "session": "its reference",
            "user": "whose",
            "first": "its first record, in UTC",
            "last": "its last record",
            "tokens": "tokens that were issued to it",
            "connections": "connections that it opened",
            "refused": "refusals",
            "revoked_at": "when it was revoked or logged out",
        },
        copies=("rare", "of_sessions"),
        query=f"""
            SELECT session, max(user_id) AS "user", min(moment) AS first,
                max(moment) AS last,
                count(*) FILTER (action = '{Action.TOKEN_ISSUED}') AS tokens,
                count(*) FILTER (action = '{Action.CONNECT_ACCEPTED}') AS connections,
                count(*) FILTER (outcome = 'failure') AS refused,
                max(moment) FILTER (ends) AS revoked_at
            FROM (SELECT *, action IN ('{Action.SESSION_REVOKED}', '{Action.LOGOUT}') AS ends FROM session_lines)
            WHERE session != '' GROUP BY session""",
    ),
    "operators": View(
        row="a call of an operator",
        columns={
            "at": "when, in UTC",
            "operator": "who; '': somebody without a key",
            "action": "what",
            "method": "the HTTP method",
            "path": "the path",
            "outcome": "success or failure",
            "reason": "why it was refused",
            "address": "from where",
            "revoked": "what was revoked: user, session, token or key",
            "user": "whose session or tokens",
            "connections": "connections that were closed",
        },
        query=f"""
            SELECT moment AS at, operator, action, method, path, outcome, reason, address, revoked,
                user_id AS "user", connections
            FROM lines WHERE action IN ('{Action.OPERATOR_ACTION}', '{Action.AUDIT_READ}')
                OR (action = '{Action.SESSION_REVOKED}' AND operator != '')""",
    ),
    "gaps": View(
        row="something that the log does not have",
        columns={
            "at": "when the log says so, in UTC; NULL: a line that is no record",
            "kind": "lost: events that could not be recorded; cut: bytes that another program cut off; unclean end: "
            "the relay was killed; no record: a line that is none",
            "count": "how many events, bytes or lines",
            "file": "the number of the file",
            "start": "where the line is in it",
            "length": "how long it is",
            "writer": "the chain",
            "seq": "the record's number in it",
        },
        query=f"""
            SELECT moment AS at, unnest(kinds) AS kind, unnest(counts_) AS "count", file, start, length,
                writer, seq
            FROM (
                SELECT *, list_filter(['lost', 'cut', 'unclean end', 'no record'], lambda kind, i:
                    [lost > 0, cut > 0, unclean_end, bad][i]) AS kinds,
                    list_filter([lost, cut, 1, 1], lambda n, i: [lost > 0, cut > 0, unclean_end, bad][i]) AS counts_
                FROM lines WHERE bad OR action = '{Action.AUDIT_GAP}'
            )""",
    ),
}


def unclean_ends(lines: str, killed: Mapping[str, str]) -> str:
    """Return the query for the ends of killed processes: those that lines tell, and those of chains, each with its time
    as SQL has it, that nobody has continued."""
    others = [f"SELECT {text_of(writer)}, {NEVER}, {at}" for writer, at in killed.items()]
    return " UNION ALL ".join([f"SELECT writer, place, moment FROM {lines} WHERE unclean_end", *others])


def named(query: str) -> list[str]:
    """Return the views that a query names, because each takes time to make; or all, if it names none."""
    return [name for name in VIEWS if name in query.lower()] or list(VIEWS)


def copies_for(names: Iterable[str]) -> list[str]:
    """Return the copies that views need."""
    return list(dict.fromkeys(copy for name in names for copy in VIEWS[name].copies))


def statements(
    names: Sequence[str],
    copied: Sequence[Copied],
    span: tuple[str, str | None],
    newest: str,
    killed: Mapping[str, str],
) -> list[str]:
    """Return the statements that make views of the attached copies, with the records of a span of time.

    `newest` is the time of the newest of these. Lines that are no record have no time, and belong to each span. For
    `killed` see `Index`.
    """
    since, until = span
    bounds = [f"moment >= TIMESTAMP '{since}'"] if since else []
    bounds += [] if until is None else [f"moment <= TIMESTAMP '{until}'"]
    where = f" WHERE bad OR ({' AND '.join(bounds)})" if bounds else ""

    def rows(copies: Iterable[str]) -> str:
        """Return the query for the rows of copies."""
        of_each = [
            " UNION ALL ".join(
                COPIES[name].read(f"part_{number}.{name}", one.files)
                for number, one in enumerate(copied)
                if name in one.names
            )
            for name in copies
        ]
        none = f"SELECT * REPLACE (moment::TIMESTAMP AS moment) FROM ({whole('rare', no_rows('rare'))})"
        every = " UNION ALL BY NAME ".join(f"({one})" for one in of_each if one) or none
        return f"SELECT *, {PLACE} AS place FROM ({every}){where}"

    queries = {}
    if others := [name for name in names if name != "sessions"]:
        queries["lines"] = rows(copies_for(others))
        ends = {of: f"TIMESTAMP '{at}'" for of, at in killed.items() if until is None or at <= until}
        queries["unclean_ends"] = unclean_ends("lines", ends)
    if "sessions" in names:
        queries["session_lines"] = rows(VIEWS["sessions"].copies)
    if {"tokens", "grants"} & {*names}:  # grants join tokens by a number, which is faster than by a text
        queries["keyed_tokens"] = VIEWS["tokens"].query
    if "grants" in names:
        queries["newest"] = f"SELECT try_cast('{newest}' AS TIMESTAMP) AS at"
    for name in names:
        queries[name] = VIEWS[name].query
    if "tokens" in names:
        columns = ", ".join(f'"{name}"' for name in VIEWS["tokens"].columns)
        queries["tokens"] = f"SELECT {columns} FROM keyed_tokens"
    return [f"CREATE TEMP VIEW {name} AS {query}" for name, query in queries.items()]
