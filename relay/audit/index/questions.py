"""Questions that the index answers: the lines that an answer needs, or the counts of all of them.

A condition on lines selects at least those that the question's own function needs, which then looks at each of them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.audit.index.database import Index
from relay.audit.index.rows import MAX_NAME
from relay.audit.query.records import RecordReader
from relay.core.events import Action
from relay.core.patterns import covers, is_pattern

TOP = 10
"""Users and addresses that are listed."""
_MOST_LIKE = 50
"""Names that may be suggested in place of one that nobody knows."""

_REFUSED = "rare AND reason != '' AND outcome = 'failure'"
_OF_CONNECTIONS = "'connect.accepted', 'subscribe.accepted', 'connection.channels', 'connection.closed'"
NAMES = ("jti", "connection", "user_id", "session", "claimed_user", "claimed_jti")
"""The columns that name a token, a connection, a user or a session. What is claimed is known too."""


def lines_naming(index: Index, names: Collection[str]) -> Iterator[bytes]:
    """Read the lines whose records have one of these names: of a token, a connection, a session or a user."""
    keys, texts = (", ".join([mark] * len(names)) for mark in ("hash(?)", "?"))
    return index.lines(
        f"jti_key IN ({keys}) OR connection_key IN ({keys}) OR user_id IN ({texts}) OR session IN ({texts})"
        f" OR rare AND (claimed_user IN ({texts}) OR claimed_jti IN ({texts}))",
        [name[:MAX_NAME] for name in names] * 6,
    )


def lines_of_address(index: Index, address: str, *, newest: int | None) -> Iterator[bytes]:
    """Read the span's lines whose records come from an address, or the `newest` of them."""
    return _lines_of(index, "address = $1", address, newest)


def lines_of_publisher(index: Index, name: str, *, newest: int | None) -> Iterator[bytes]:
    """Read the span's lines whose records are about a publisher or an operator who claims that name, or the newest."""
    return _lines_of(index, "(publisher = $1 OR claimed_name = $1)", name, newest)


def _lines_of(index: Index, where: str, name: str, newest: int | None) -> Iterator[bytes]:
    since, until = index.span
    bounds = f"NOT bad AND moment >= '{since}'" + ("" if until is None else f" AND moment <= '{until}'")
    return index.lines(f"{where} AND {bounds}", [name[:MAX_NAME]], newest=newest)


def lines_with_marks(index: Index) -> Iterator[bytes]:
    """Read the lines whose records have an anomaly mark."""
    return index.lines("rare AND len(marks) > 0")


def lines_of_connections(index: Index, endpoint: str, *, begin: str, end: str) -> Iterator[bytes]:
    """Read the lines of the connections to an endpoint that may have been open between two times, and all gaps."""
    where = """
        action = 'audit.gap' OR (
            action IN ('connect.accepted', 'subscribe.accepted', 'connection.closed') AND connection_key IN (
                SELECT connection_key FROM lines AS accepted
                WHERE action = 'connect.accepted' AND endpoint = ? AND moment <= ? AND NOT EXISTS (
                    SELECT 1 FROM lines AS closed
                    WHERE closed.action = 'connection.closed' AND closed.connection_key = accepted.connection_key
                        AND closed.moment <= ? AND closed.place > accepted.place
                )
            )
        )"""
    return index.lines(where, [endpoint, end, begin])


def lines(index: Index) -> Iterator[bytes]:
    """Read the lines of the span's records."""
    since, until = index.span
    return index.lines("NOT bad AND moment >= ? AND (? IS NULL OR moment <= ?)", [since, until, until])


def table(index: Index, columns: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of the span's records, in the order of the log."""
    return index.each(f"SELECT {', '.join(columns)} FROM spanned ORDER BY {index.order}")


def names_like(index: Index, name: str, columns: Sequence[str] = NAMES) -> set[str]:
    """Return those names of the span's records, in some columns, that are most like a name: a log can have millions."""
    every = " UNION ".join(f"SELECT {column} AS name FROM spanned WHERE {column} != ''" for column in columns)
    like = f"SELECT name FROM ({every}) ORDER BY jaro_winkler_similarity(name, ?) DESC LIMIT {_MOST_LIKE}"
    return {found for (found,) in index.rows(like, [name[:MAX_NAME]])}


def distinct(index: Index, column: str) -> set[str]:
    """Return the values of a column in the span that are not empty."""
    return {value for (value,) in index.rows(f"SELECT DISTINCT {column} FROM spanned WHERE {column} != ''")}


@dataclass(slots=True)
class Stats:
    """Counts of a log's records. `refusals` are by action and reason, and include denials that were only counted.

    `lost` are events that could not be recorded, by action.
    """

    records: int = 0
    first: str = ""
    last: str = ""
    actions: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    endpoints: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


def stats(index: Index) -> Stats:
    """Count the span. Tokens and connects are counted by endpoint, refusals by user and address.

    Of equal counts, the one that came first is first.
    """

    found = _counted(index)
    for _, action, reason, count in refusals_by_day(index):
        found.refusals[action, reason] += count
    if any(summary.lacking for _, summary in index.summaries):
        since, until = index.span
        losing = "rare AND NOT bad AND lost != 0 AND moment >= ? AND (? IS NULL OR moment <= ?)"
        for record in RecordReader().records(index.lines(losing, [since, until, until])):
            found.lost.update(record.relay.lost)
    for column, counts in (("user_id", found.users), ("address", found.addresses)):
        counts.update(
            dict(
                index.rows(
                    f"SELECT {column}, count(*) FROM spanned WHERE {_REFUSED} AND {column} != '' "
                    "GROUP BY 1 ORDER BY min(place)"
                )
            )
        )
    return found


def _counted(index: Index) -> Stats:
    """Count the actions and the endpoints of the span. Without bounds, the parts have counted already."""
    counts = [(number, summary.counts) for number, summary in index.summaries]
    kinds: list[tuple[Any, ...]]
    if index.span == ("", None) and all(of_part is not None for _, of_part in counts):
        kinds = [(number, *kind) for number, of_part in counts for kind in of_part or ()]
        ends = [(number, one.first, one.last) for number, one in index.summaries if one.records]
        found = Stats(records=sum(kind[3] for kind in kinds))
        # the parts of a file are in their order, and the tail of the last one is the last
        ends.sort(key=lambda end: end[0])
        if ends:
            found.first, found.last = ends[0][1], ends[-1][2]
    else:
        ((total, first, last),) = index.rows(
            "SELECT count(*), arg_min(moment, place), arg_max(moment, place) FROM spanned"
        )
        found = Stats(records=total, first=first or "", last=last or "")
        kinds = index.rows(
            "SELECT file, action, endpoint, count(*), min(start) FROM spanned GROUP BY 1, 2, 3"
        )
    for _, action, endpoint, count, _ in sorted(kinds, key=lambda kind: (kind[0], kind[4])):
        found.actions[action] += count
        if action in (Action.TOKEN_ISSUED, Action.CONNECT_ACCEPTED):
            found.endpoints[endpoint] += count
    return found


def is_named(index: Index, name: str, columns: Sequence[str] = NAMES) -> bool:
    """Tell whether a record at any time has this name in one of some columns."""
    where = " OR ".join(f"{column} = ?" for column in columns)
    return bool(index.rows(f"SELECT 1 FROM lines WHERE {where} LIMIT 1", [name[:MAX_NAME]] * len(columns)))


def lines_of_ends(index: Index, about: str) -> Iterator[bytes]:
    """Read the span's lines of the connections of a session, a user, a token or a connection, and of killed relays."""
    since, until = index.span
    where = f"""
        NOT bad AND (? IS NULL OR moment <= ?) AND (
            (rare AND unclean_end)
            OR action IN ('connect.accepted', 'connection.channels', 'connection.closed') AND connection_key IN (
                SELECT connection_key FROM lines WHERE action = 'connect.accepted'
                    AND (user_id = ? OR session = ? OR jti_key = hash(?) OR connection_key = hash(?))
                EXCEPT SELECT connection_key FROM lines WHERE action = 'connection.closed' AND moment < '{since}'
            )
        )"""
    return index.lines(where, [until, until, *([about[:MAX_NAME]] * 4)])


def endpoints(index: Index) -> set[str]:
    """Return the endpoints that the log names."""
    counts = [summary.counts for _, summary in index.summaries]
    if None in counts:
        return {name for (name,) in index.rows("SELECT DISTINCT endpoint FROM lines")} - {""}
    return {kind[1] for of_part in counts for kind in of_part or ()} - {""}


def refusals_by_day(index: Index) -> list[tuple[str, str, str, int]]:
    """Count the span's refusals: a day (UTC), an action, a reason, and how many, in the order of the first of them.

    Denials that were only counted belong to the day of the record that counts them.
    """
    # the record of a refused frame or batch has the number of its publications
    many = f'sum(CASE WHEN action = \'{Action.PUBLISH_DENIED}\' AND "count" != 0 THEN "count" ELSE 1 END)::BIGINT'
    columns = "substr(moment, 1, 10), action, reason"
    found: list[tuple[int, tuple[str, str, str], int]] = [
        (place, (day, action, reason), count)
        for day, action, reason, count, place in index.rows(
            f"SELECT {columns}, {many}, min(place) FROM spanned WHERE {_REFUSED} GROUP BY {columns} ORDER BY min(place)"
        )
    ]
    since, until = index.span
    counting = "rare AND NOT bad AND counts AND moment >= ? AND (? IS NULL OR moment <= ?)"
    for place, line in index.placed_lines(counting, [since, until, until]):
        found += [  # denials beyond the budget
            (place, (record.at[:10], action, reason), count)
            for record in RecordReader().records([line])
            for action, reasons in record.relay.denied.items()
            for reason, count in reasons.items()
        ]
    counts: Counter[tuple[str, str, str]] = Counter()
    for _, key, count in sorted(found, key=lambda one: one[0]):
        counts[key] += count
    return [(*key, count) for key, count in counts.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What an answer may lack: lines that are no record, and of the span the events and bytes that the log lost.

    `killed` counts the relays that ended without closing the log.
    """

    unreadable: int
    lost: int
    cut: int
    killed: int


def missing(index: Index) -> Missing:
    """Return what is missing in the log."""
    summaries = [summary for _, summary in index.summaries]
    lost = cut = killed = 0
    if any(
        one.counts is None or any(kind[0] == Action.AUDIT_GAP for kind in one.counts) for one in summaries
    ):
        ((lost, cut, killed),) = index.rows(
            "SELECT coalesce(sum(lost), 0)::BIGINT, coalesce(sum(cut), 0)::BIGINT, count(*) FILTER (unclean_end) "
            f"FROM spanned WHERE rare AND action = '{Action.AUDIT_GAP}'"
        )
    unreadable = sum(summary.bad for summary in summaries)
    return Missing(unreadable=unreadable, lost=lost, cut=cut, killed=killed)


def lines_of_subscribers(index: Index, channel: str) -> Iterator[bytes]:
    """Read the lines of the connections that may have subscribed to a channel, and those that end or hide many of them.

    Their records name it, or do not name all channels, or subscriptions were only counted while they were open.
    """
    named = [
        name
        for (name,) in index.rows(
            f"SELECT DISTINCT unnest(channels) FROM lines WHERE action IN ({_OF_CONNECTIONS})"
        )
        if name == channel or (is_pattern(name) and covers(name, channel))
    ]
    floods = index.rows(
        "SELECT writer, min(since), max(moment) FROM lines "
        f"WHERE action = '{Action.SUBSCRIPTIONS_AGGREGATED}' GROUP BY 1"
    )
    hidden = """
            UNION SELECT accepted.connection FROM lines AS accepted
            WHERE action = 'connect.accepted' AND writer = ? AND moment <= ? AND NOT EXISTS (
                SELECT 1 FROM lines AS closed
                WHERE closed.action = 'connection.closed' AND closed.connection_key = accepted.connection_key
                    AND closed.moment < ?
            )"""
    where = f"""
        (rare AND action IN ('{Action.AUDIT_GAP}', '{Action.SUBSCRIPTIONS_AGGREGATED}'))
        OR action IN ({_OF_CONNECTIONS}) AND connection IN (
            SELECT connection FROM lines WHERE list_has_any(channels, ?::VARCHAR[]) OR (
                "count" > CASE WHEN action LIKE 'connection.c%' THEN 0 ELSE len(channels) END
                AND action IN ({_OF_CONNECTIONS})
            ){hidden * len(floods)}
        )"""
    bounds = [bound for writer, first, last in floods for bound in (writer, last, first)]
    return index.lines(where, [named, *bounds])


def lines_of_holders(index: Index, *, begin: str, end: str, expires: float) -> Iterator[bytes]:
    """Read the lines of what may be held between two times: connections, tokens, and what ends both.

    `expires` is the first of the two times, in Unix seconds.
    """
    where = """
        moment <= ? AND (
            action IN ('audit.gap', 'session.revoked', 'logout')
            OR jti_key IN (SELECT jti_key FROM lines WHERE action = 'token.issued' AND expires > ? AND moment <= ?)
            OR action IN ('connect.accepted', 'connection.refreshed', 'connection.closed') AND connection_key IN (
                SELECT connection_key FROM lines AS accepted
                WHERE action = 'connect.accepted' AND moment <= ? AND NOT EXISTS (
                    SELECT 1 FROM lines AS closed
                    WHERE closed.action = 'connection.closed' AND closed.connection_key = accepted.connection_key
                        AND closed.moment <= ?
                )
            )
        )"""
    return index.lines(where, [end, expires, end, end, begin])


def lines_of_refused_grants(index: Index) -> Iterator[bytes]:
    """Read the span's lines that say that something was asked and not granted."""
    since, until = index.span
    where = """
        NOT bad AND moment >= ? AND (? IS NULL OR moment <= ?) AND (
            action IN ('token.denied', 'subscribe.denied', 'denials.aggregated')
            OR action = 'token.issued' AND len(rejected) > 0
        )"""
    return index.lines(where, [since, until, until])
