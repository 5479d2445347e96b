"""The sheets of a part: files with some of its rows or columns. A question reads, and checks, those that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from relay.audit.index.rows import COLUMNS, DERIVED, SUBSCRIBED
from relay.core.events import Action

_KEYS = (
    *("start", "length", "moment", "action", "endpoint", "user_id", "session", "jti_key", "connection_key"),
    *("grants_key", "use_key", "expires", "writer"),
)

SHEETS: Mapping[str, str] = {
    "rare": "SELECT * FROM {rows} WHERE rare",
    "usual": "SELECT * FROM {rows} WHERE NOT rare",
    "keys": f"SELECT {', '.join(_KEYS)} FROM {{rows}} WHERE NOT bad",
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

`rare` and `usual` have every row. `keys` has the columns that are joined or searched, of each record. `kinds` and
`uses` say what their numbers stand for: `kinds` what tokens granted, and `uses` which channels a connection subscribed
to, or (`is_told`) which grants it used as its last record says. `is_cut`: the record does not name all its channels.
`tokens` counts by user and kind. `stories` has for each token its last kind, and its uses: almost all have at most two.
"""

SUMS = frozenset({"tokens", "stories"})
"""Sheets that sum up rows. Within bounds of time they are made of the rows of `keys`."""

_TYPES = COLUMNS | {name: kind for name, (kind, _) in DERIVED.items()}
_NO_ROW = "SELECT {} WHERE false".format(
    ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in _TYPES.items())
)

PLACE = "file::BIGINT * 1099511627776 + start"
"""The place of a line in the whole log. A file has less than a TB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
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
    "spanned_tokens": View(sheets=("tokens",), is_bounded=True, has_places=False),
    "spanned_stories": View(sheets=("stories",), is_bounded=True),
}
"""The views that questions ask. Lines that are no record are in `lines` and `rare_lines` alone."""


def no_rows(sheet: str) -> str:
    """Return the query for a sheet without rows."""
    return SHEETS[sheet].format(rows=f"({_NO_ROW})")
