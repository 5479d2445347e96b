"""The sheets of a part: files with some of its rows or columns. A question reads, and checks, those that it needs."""

from collections.abc import Iterable, Mapping

import msgspec

from relay.audit.index.rows import COLUMNS, DERIVED, SUBSCRIBED, TOLD, USUAL_VALUES
from relay.core.events import Action

EPOCH_MS = "epoch_ms(try_cast({} AS TIMESTAMP))"
"""The time of a record in milliseconds since 1970. Such numbers are read 5 times as fast as texts."""
NEVER = 1 << 62
"""A time, in milliseconds, after those of all records."""

_KEYS = (
    *("start", "length", "action", "endpoint", "user_id", "session", "jti_key", "connection_key"),
    *("grants_key", "use_key", "names_key", "expires", "writer", "claimed_user", "claimed_jti"),
)

_OF_MANY = ", ".join(
    f"'{action}'"
    for action in (Action.AUDIT_GAP, Action.SUBSCRIPTIONS_AGGREGATED, Action.SESSION_REVOKED, Action.LOGOUT)
)
"""Actions whose records are about many connections or tokens, which they do not name."""


def _named(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


SHEETS: Mapping[str, str] = {
    "rare": f"SELECT {_named(COLUMNS)} FROM {{rows}} WHERE rare",
    "usual": f"SELECT {_named(name for name in COLUMNS if name not in USUAL_VALUES)} FROM {{rows}} WHERE NOT rare",
    "keys": f"SELECT {_named(_KEYS)}, {EPOCH_MS.format('moment')} AS moment FROM {{rows}} WHERE NOT bad",
    "loose": f"""
        WITH unexpired AS (
            SELECT jti_key FROM {{rows}} WHERE jti != '' GROUP BY jti_key
            HAVING count(*) FILTER (action = '{Action.TOKEN_ISSUED}') = 0
                OR max(expires) * 1000 > (SELECT max({EPOCH_MS.format("moment")}) FROM {{rows}})
        ), unended AS (
            SELECT connection_key FROM {{rows}} WHERE connection != '' GROUP BY connection_key
            HAVING count(*) FILTER (action = '{Action.CONNECT_ACCEPTED}') != 1
                OR count(*) FILTER (action = '{Action.CONNECTION_CLOSED}') != 1
                OR max(start) FILTER (action = '{Action.CONNECTION_CLOSED}')
                    < max(start) FILTER (action = '{Action.CONNECT_ACCEPTED}')
            UNION SELECT connection_key FROM {{rows}}
            WHERE connection != '' AND jti_key IN (SELECT jti_key FROM unexpired)
        )
        SELECT {_named(_KEYS)}, {EPOCH_MS.format("moment")} AS moment FROM {{rows}} WHERE NOT bad AND (
            action IN ({_OF_MANY}) OR connection_key IN (SELECT connection_key FROM unended)
            OR jti_key IN (SELECT jti_key FROM unexpired))""",
    "kinds": f"""
        SELECT grants_key AS kind, any_value(endpoint) AS endpoint, any_value(roles) AS roles,
            any_value(scope) AS scope, any_value(granted) AS granted
        FROM {{rows}} WHERE action = '{Action.TOKEN_ISSUED}' GROUP BY grants_key""",
    "uses": f"""
        SELECT use_key AS use, any_value(endpoint) AS endpoint, any_value(user_id) AS user_id,
            any_value(CASE WHEN action IN ({SUBSCRIBED}) THEN channels ELSE used END) AS names,
            any_value(action NOT IN ({SUBSCRIBED})) AS is_told,
            any_value(action IN ({SUBSCRIBED}) AND "count" > len(channels)) AS is_cut
        FROM {{rows}} WHERE use_key != 0 GROUP BY use_key""",
    "named": f"""
        SELECT names_key AS names, any_value(channels) AS channels, any_value(scope) AS scope,
            any_value(action IN ({TOLD})) AS is_told,
            any_value("count" > CASE WHEN action IN ({TOLD}) THEN 0 ELSE len(channels) END) AS is_cut
        FROM (SELECT * REPLACE (CASE WHEN action = '{Action.CONNECT_ACCEPTED}' THEN scope END AS scope) FROM {{rows}})
        WHERE names_key != 0 GROUP BY names_key""",
    "tokens": f"""
        SELECT user_id, grants_key AS kind, count(*) AS tokens FROM {{rows}}
        WHERE action = '{Action.TOKEN_ISSUED}' GROUP BY ALL""",
    "stories": """
        SELECT jti_key, max(start) FILTER (grants_key != 0) AS start,
            arg_max(user_id, start) FILTER (grants_key != 0) AS holder,
            arg_max(grants_key, start) FILTER (grants_key != 0) AS kind, min(use_key) FILTER (use_key != 0) AS one,
            max(use_key) FILTER (use_key != 0) AS other, count(*) FILTER (use_key != 0) AS uses
        FROM {rows} WHERE grants_key != 0 OR use_key != 0 GROUP BY jti_key""",
}
"""The query that makes each sheet of rows with all columns.

`rare` and `usual` have every row. `keys` has the columns that are joined or searched, of each record, and its time as
a number. `loose` has those of these rows that matter to a time outside of the part: of connections that the part does
not have from their begin to their end, of tokens that it does not have from their issue until they expire, of
connections with these, and those about many of both. `kinds`, `uses` and `named` say what their numbers stand for:
`kinds` what tokens granted, `uses` which channels a connection subscribed to, or (`is_told`) which grants it used as
its last record says, and `named` the channels that a record names: of subscriptions, or (`is_told`) of what was sent,
and the scope of the token that opened a connection. `is_cut`: the record does not name all its channels. `tokens`
counts by user and kind. `stories` has for each token its last kind, and its uses: almost all have at most two.
"""

SUMS = frozenset({"tokens", "stories"})
"""Sheets that sum up rows. Within bounds of time they are made of the rows of `keys`."""

_TYPES = COLUMNS | {name: kind for name, (kind, _) in DERIVED.items()}
_NO_ROW = "SELECT {} WHERE false".format(
    ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in _TYPES.items())
)

PLACE = "file::BIGINT * 1099511627776 + start"
"""The place of a line in the whole log. A file has less than a TB."""


_DERIVED = ", ".join(f"{value} AS {name}" for name, (_, value) in DERIVED.items() if name != "rare")
_USUALLY = ", ".join(f'{value}::{COLUMNS[name]} AS "{name}"' for name, value in USUAL_VALUES.items())


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A view of sheets: of all rows, or of those of the span."""

    sheets: tuple[str, ...]
    is_bounded: bool = False
    has_places: bool = True


VIEWS: Mapping[str, View] = {
    "lines": View(sheets=("rare", "usual")),
    "spanned": View(sheets=("rare", "usual"), is_bounded=True),
    "rare_lines": View(sheets=("rare",)),
    "rare_spanned": View(sheets=("rare",), is_bounded=True),
    "keys": View(sheets=("keys",)),
    "spanned_keys": View(sheets=("keys",), is_bounded=True),
    "kinds_of_parts": View(sheets=("kinds",), has_places=False),
    "uses_of_parts": View(sheets=("uses",), has_places=False),
    "named_of_parts": View(sheets=("named",), has_places=False),
    "spanned_tokens": View(sheets=("tokens",), is_bounded=True, has_places=False),
    "spanned_stories": View(sheets=("stories",), is_bounded=True),
}
"""The views that questions ask. Lines that are no record are in `lines` and `rare_lines` alone."""


def text_of(value: str) -> str:
    """Return a text as SQL has it."""
    return "'{}'".format(value.replace("'", "''"))


def viewed(sheet: str, rows: str) -> str:
    """Return the query for the rows of a sheet, which another one selects, with the columns that a view has."""
    return f"SELECT *, {_USUALLY} FROM ({rows})" if sheet == "usual" else rows


def whole(sheet: str, rows: str) -> str:
    """Return the query for the rows of `rare` or `usual` with all columns, though not in the same order."""
    return f"SELECT *, {_DERIVED} FROM (SELECT *, {sheet == 'rare'} AS rare FROM ({viewed(sheet, rows)}))"


def no_rows(sheet: str) -> str:
    """Return the query for a view of a sheet without rows."""
    return viewed(sheet, f"SELECT 0 AS file, * FROM ({SHEETS[sheet].format(rows=f'({_NO_ROW})')})")
