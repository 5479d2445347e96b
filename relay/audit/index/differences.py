"""What a role, a user or a publisher had and used in one period and not in another.

Each fact has a time from which and until which it holds. It is in a period if it holds at any time of it: a connection
counts in each period in which it was open, with its subscriptions and the grants of its token.
"""

from dataclasses import dataclass
from typing import Literal

from relay.audit.index.database import Index
from relay.audit.index.privileges import KINDS, NAMES_BY_ROLE, SERVICE, load_narrowest
from relay.audit.index.rows import SUBSCRIBED
from relay.audit.index.sheets import EPOCH_MS, NEVER
from relay.audit.index.views import published_rows, unclean_ends
from relay.audit.query.records import epoch_ms, iso_of
from relay.core.events import Action

Bounds = tuple[str, str]
"""The begin and the end of a period, in the form of records. The end is no part of it."""


By = Literal["role", "user", "publisher"]
"""To whom the facts belong."""

_RARE = f"(SELECT * REPLACE ({EPOCH_MS.format('moment')} AS moment), hash(jti) AS jti_key FROM rare_spanned)"
_WHATS = ("granted", "opened", "subscribed", "published", "refused")

_LIVES = f"""
    CREATE OR REPLACE TEMP TABLE last_tokens AS
    SELECT jti_key, arg_max(grants_key, place) AS kind FROM spanned_keys WHERE action = '{Action.TOKEN_ISSUED}'
    GROUP BY jti_key;
    CREATE OR REPLACE TEMP TABLE lives AS
    SELECT begun.connection_key, begun.since, first.jti_key, first.user_id, first.endpoint,
        coalesce(begun.closed, killed.moment, {NEVER}) AS until
    FROM (
        SELECT connection_key, min(moment) AS since, max(moment) AS latest, min(place) AS place,
            min(moment) FILTER (action = '{Action.CONNECTION_CLOSED}') AS closed
        FROM spanned_keys WHERE connection_key != hash('') AND (
            action IN ({SUBSCRIBED}, '{Action.CONNECTION_REFRESHED}', '{Action.CONNECTION_CLOSED}')
        ) GROUP BY connection_key
        HAVING closed IS NULL OR greatest(closed, latest) >= {{begin}}
    ) AS begun
    JOIN spanned_keys AS first USING (place)
    ASOF LEFT JOIN ({{unclean_ends}}) AS killed
        ON killed.writer = first.writer AND begun.place < killed.place;
    CREATE OR REPLACE TEMP TABLE holdings AS
    SELECT jti_key, max(until) AS until FROM (
        SELECT held.jti_key, coalesce(
            lead(held.moment) OVER (PARTITION BY held.connection_key ORDER BY held.place), lives.until) AS until
        FROM spanned_keys AS held JOIN lives USING (connection_key)
        WHERE held.action IN ('{Action.CONNECT_ACCEPTED}', '{Action.CONNECTION_REFRESHED}')
    ) GROUP BY jti_key"""
"""When connections were open, and until when one held the grants of a token."""

_OF_TOKENS = f"""
    CREATE OR REPLACE TEMP TABLE facts AS
    SELECT 'granted' AS what, user_id, kind, endpoint, '' AS name, '' AS reason, NULL::VARCHAR[] AS roles, {{counts}}
    FROM (
        SELECT user_id, kind, endpoint, 1 AS n, moment AS since, greatest(moment, until) AS until
        FROM spanned_keys JOIN last_tokens USING (jti_key) LEFT JOIN holdings USING (jti_key)
        WHERE action = '{Action.TOKEN_ISSUED}'
    ) WHERE {{held}} GROUP BY ALL
    UNION ALL
    SELECT 'opened', user_id, kind, endpoint, '', '', NULL, {{counts}}
    FROM (SELECT *, 1 AS n FROM lives LEFT JOIN last_tokens USING (jti_key)) WHERE {{held}} GROUP BY ALL
    UNION ALL
    SELECT 'subscribed', user_id, kind, endpoint, unnest(names), '', NULL, a, b, first, last FROM (
        SELECT use_key AS use, kind, {{counts}} FROM (
            SELECT use_key, kind, 1 AS n, moment AS since, greatest(moment, until) AS until
            FROM spanned_keys AS asked JOIN lives USING (connection_key)
            LEFT JOIN last_tokens ON last_tokens.jti_key = asked.jti_key
            WHERE action IN ({SUBSCRIBED}) AND use_key != 0
        ) WHERE {{held}} GROUP BY ALL
    ) JOIN uses USING (use)
    UNION ALL
    SELECT 'refused', user_id, kind, endpoint, name, reason, roles, {{counts}} FROM (
        SELECT user_id, kind, endpoint, one.name, one.why AS reason, nullif(roles, []) AS roles, one.n, moment AS since,
            moment AS until
        FROM (
            SELECT *, unnest(CASE action
                WHEN '{Action.TOKEN_ISSUED}' THEN list_transform(rejected, lambda name, i:
                    {{{{'name': name, 'why': rejected_reasons[i], 'n': 1::BIGINT}}}})
                WHEN '{Action.TOKEN_DENIED}' THEN list_transform(CASE WHEN len(asked) = 0 THEN [''] ELSE asked END,
                    lambda name: {{{{'name': name, 'why': reason, 'n': 1::BIGINT}}}})
                WHEN '{Action.SUBSCRIBE_DENIED}' THEN list_transform(channels,
                    lambda name: {{{{'name': name, 'why': reason, 'n': 1::BIGINT}}}}
                ) || CASE WHEN "count" > len(channels)
                    THEN [{{{{'name': '', 'why': reason, 'n': "count" - len(channels)}}}}] ELSE [] END
                ELSE [{{{{'name': '', 'why': reason, 'n': 1::BIGINT}}}}] END) AS one
            FROM {_RARE}
            WHERE action IN ('{Action.TOKEN_DENIED}', '{Action.SUBSCRIBE_DENIED}',
                '{Action.CONNECT_DENIED}') OR (action = '{Action.TOKEN_ISSUED}' AND len(rejected) > 0)
        ) LEFT JOIN last_tokens USING (jti_key)
    ) GROUP BY ALL;
    CREATE OR REPLACE TEMP TABLE facts AS
    SELECT what, user_id, kind, endpoint, name, reason, roles, sum(a)::BIGINT AS a, sum(b)::BIGINT AS b,
        min(first) AS first, max(last) AS last
    FROM facts WHERE user_id != '' AND a + b > 0 GROUP BY ALL"""
"""What happened in each period, counted by user and kind of token."""

_BY = f"""
    WITH granted_by AS (
        SELECT kind, name, {{names}} AS whose FROM (
            SELECT *, unnest(CASE WHEN len(scope) = 0 THEN ['{SERVICE}'] ELSE scope END) AS name FROM kinds
        )
    ),
    attributed AS (
        SELECT granted_by.whose, what, user_id, facts.endpoint, granted_by.name, reason, a, b, first, last
        FROM facts JOIN granted_by USING (kind) WHERE what = 'granted'
        UNION ALL
        SELECT coalesce(openers.whose, ['unknown']), what, user_id, facts.endpoint, name, reason, a, b, first, last
        FROM facts LEFT JOIN (
            SELECT kind, list_distinct(flatten(list(whose))) AS whose FROM granted_by GROUP BY kind
        ) AS openers USING (kind) WHERE what = 'opened'
        UNION ALL
        SELECT list_distinct(flatten(list(whose))), what, user_id, endpoint, channel, '', a, b, first, last FROM (
            SELECT {{names}} AS whose, * FROM (
                SELECT what, user_id, kind, facts.endpoint, facts.name AS channel, pattern AS name, kinds.granted,
                    kinds.roles, a, b, first, last
                FROM facts LEFT JOIN narrowest USING (kind, name) LEFT JOIN kinds USING (kind)
                WHERE what = 'subscribed'
            )
        ) GROUP BY what, user_id, kind, endpoint, channel, a, b, first, last
        UNION ALL
        SELECT CASE WHEN coalesce(facts.roles, kinds.roles) IS NULL THEN ['unknown']
                WHEN len(coalesce(facts.roles, kinds.roles)) = 0 THEN ['no role']
                ELSE coalesce(facts.roles, kinds.roles) END,
            what, user_id, facts.endpoint, name, reason, a, b, first, last
        FROM facts LEFT JOIN kinds USING (kind) WHERE what = 'refused'
    )
    SELECT whose, what, endpoint, name, reason, sum(a)::BIGINT, sum(b)::BIGINT, min(first), max(last)
    FROM (SELECT unnest({{whose}}) AS whose, * EXCLUDE (whose) FROM attributed)
    GROUP BY ALL HAVING (sum(a) > 0) != (sum(b) > 0)"""

_OF_PUBLISHERS = f"""
    SELECT * FROM (
        SELECT publisher, what, '', name, reason, {{counts}} FROM (
            SELECT publisher, 'published' AS what, channel AS name, '' AS reason, "count" + dropped + alive AS n,
                {EPOCH_MS.format("since")} AS since, {EPOCH_MS.format('"until"')} AS "until"
            FROM ({{published}})
            UNION ALL
            SELECT publisher, 'refused', '', reason, greatest("count", 1), moment, moment
            FROM {_RARE} WHERE action = '{Action.PUBLISH_DENIED}'
        ) WHERE publisher != '' GROUP BY ALL
    ) WHERE (a > 0) != (b > 0)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that was in one period alone (`only_in` is A or B), how often, and its first and last record.

    `what` is granted, opened (a connection to the endpoint), subscribed, published or refused (with its `reason`).
    `channel` is a pattern of a grant, or a channel. It is empty for connections, for refusals that name none, and for
    publications that have no row.
    """

    whose: str
    only_in: str
    what: str
    endpoint: str
    channel: str
    reason: str
    count: int
    first: str
    last: str


def differences(index: Index, a: Bounds, b: Bounds, *, by: By = "role") -> list[Difference]:
    """Return what is in one of two periods alone. The span of the index must not end before they do.

    A grant belongs to the roles that granted it, a subscription to those that granted its channel, a connection to
    those that granted anything of its token, and a refusal to all roles of the session. A refusal whose credential
    proves nobody belongs to nobody.
    """
    within = [f"since < {epoch_ms(end)} AND until >= {epoch_ms(begin)}" for begin, end in (a, b)]
    counts = ", ".join(
        f"coalesce(sum(n) FILTER ({period}), 0)::BIGINT AS {name}"
        for name, period in zip("ab", within, strict=True)
    )
    held = " OR ".join(within)  # those of records outside both periods are not asked for
    counts += f", min(since) FILTER ({held}) AS first, max(since) FILTER ({held}) AS last"
    if by == "publisher":
        rows = index.rows(_OF_PUBLISHERS.format(counts=counts, published=published_rows("rare_spanned")))
    else:
        index.execute(KINDS)
        ends = unclean_ends(_RARE, {of: str(epoch_ms(at)) for of, at in index.killed.items()})
        index.execute(_LIVES.format(begin=epoch_ms(min(a[0], b[0])), unclean_ends=ends))
        index.execute(_OF_TOKENS.format(counts=counts, held=held))
        load_narrowest(index, "SELECT DISTINCT kind, name FROM facts WHERE what = 'subscribed'")
        whose = "whose" if by == "role" else "[user_id]"
        rows = index.rows(_BY.format(names=NAMES_BY_ROLE, whose=whose))
    found = [
        Difference(
            whose=whose,
            only_in="A" if in_a else "B",
            what=what,
            endpoint=endpoint,
            channel=channel,
            reason=reason,
            count=in_a or in_b,
            first=iso_of(first),
            last=iso_of(last),
        )
        for whose, what, endpoint, channel, reason, in_a, in_b, first, last in rows
    ]
    return sorted(
        found,
        key=lambda one: (
            one.whose,
            one.only_in,
            _WHATS.index(one.what),
            one.endpoint,
            one.channel,
            one.reason,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """What a comparison of two periods can't know.

    `first` is the time of the log's first record, and `empty` are the periods without a record. `unnamed` records of
    subscriptions do not name all channels. `nameless` records count refusals above the budget, and say of nobody.
    """

    first: str
    empty: tuple[str, ...]
    unnamed: int
    nameless: int


def unknown(index: Index, a: Bounds, b: Bounds) -> Unknown:
    """Return what the log does not say about two periods."""
    in_a, in_b = (f"(moment >= {epoch_ms(begin)} AND moment < {epoch_ms(end)})" for begin, end in (a, b))
    ((first, of_a, of_b, unnamed, nameless),) = index.rows(
        f"""
        SELECT min(moment), count(*) FILTER ({in_a}), count(*) FILTER ({in_b}),
            count(*) FILTER (({in_a} OR {in_b}) AND action IN ({SUBSCRIBED})
                AND use_key IN (SELECT use FROM uses_of_parts WHERE is_cut))
                + (SELECT count(*) FROM {_RARE} WHERE ({in_a} OR {in_b}) AND "count" > len(channels)
                    AND action = '{Action.SUBSCRIBE_DENIED}'),
            count(*) FILTER (({in_a} OR {in_b}) AND action = '{Action.DENIALS_AGGREGATED}')
        FROM spanned_keys"""
    )
    empty = tuple(name for name, count in (("A", of_a), ("B", of_b)) if not count)
    return Unknown(
        first="" if first is None else iso_of(first), empty=empty, unnamed=unnamed, nameless=nameless
    )
