"""Questions that the index answers: the lines that an answer needs, or the counts of all of them.

A condition on lines selects at least those that the question's own function needs, which then looks at each of them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from relay.audit.index.database import Index, Span
from relay.audit.index.rows import MAX_NAME, SUBSCRIBED, TOLD
from relay.audit.index.sheets import EPOCH_MS, NEVER
from relay.audit.query.records import RecordReader, epoch_ms, iso_of
from relay.core.events import Action
from relay.core.patterns import covers
from relay.core.scope import Scope

TOP = 10
"""Users and addresses that are listed."""
_MOST_LIKE = 50
"""Names that may be suggested in place of one that nobody knows."""

_REFUSALS = """
    CREATE OR REPLACE TEMP TABLE refusals AS
    SELECT place, file, start, length, moment, action, reason, user_id, address, "count", counts,
        reason != '' AND outcome = 'failure' AS is_refusal
    FROM rare_spanned WHERE counts OR is_refusal"""
"""The span's records that are a refusal, or count those that have no record."""
_OF_CONNECTIONS = f"{SUBSCRIBED}, {TOLD}"
NAMES = ("jti", "connection", "user_id", "session", "claimed_user", "claimed_jti")
"""The columns that name a token, a connection, a user or a session. What is claimed is known too."""


class Naming:
    """Reads the lines whose records have one of some names: of a token, a connection, a session or a user.

    Later calls may have more names, which are those of tokens and connections. Each name is searched once.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._searched: set[str] = set()
        self._found: dict[tuple[int, ...], bytes] = {}

    def __call__(self, names: Collection[str]) -> list[bytes]:
        """Return the lines in the order of the log."""
        if new := [name for name in names if name not in self._searched]:
            values = ", ".join(f"${number}" for number in range(1, len(new) + 1))
            hashes = ", ".join(f"hash(${number})" for number in range(1, len(new) + 1))
            # one comparison a query: DuckDB then decodes a column alone, and the others where a row was found
            conditions = [f"{column}_key IN ({hashes})" for column in ("jti", "connection")]
            if not self._searched:
                conditions += [
                    f"{column} IN ({values})"
                    for column in ("user_id", "session", "claimed_user", "claimed_jti")
                ]
            query = " UNION ALL ".join(
                f"SELECT {self._index.order}, file, start, length FROM keys WHERE {condition}"
                for condition in conditions
            )
            for found in self._index.rows(query, [name[:MAX_NAME] for name in new]):
                if found not in self._found:
                    self._found[found] = self._index.line(*found[-3:])
            self._searched |= {*new}
        return [self._found[place] for place in sorted(self._found)]


class Marked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record with anomaly marks."""

    at: str
    marks: tuple[str, ...]
    action: str
    reason: str
    user: str
    address: str
    user_agent: str
    jti: str


def marked(index: Index, *, marks: Collection[str] | None = None, newest: int | None = None) -> list[Marked]:
    """Return the span's records with anomaly marks, or with one of `marks`: in their order, or the newest first."""
    order = index.order if newest is None else f"moment DESC, place DESC LIMIT {newest}"
    rows = index.rows(
        f"""
        SELECT moment, marks, action, reason, user_id, address, user_agent, jti FROM rare_spanned
        WHERE len(marks) > 0 AND ($1 IS NULL OR list_has_any(marks, $1::VARCHAR[])) ORDER BY {order}""",
        [None if marks is None else list(marks)],
    )
    return [
        Marked(
            at=at,
            marks=tuple(of),
            action=action,
            reason=reason,
            user=user,
            address=address,
            user_agent=user_agent,
            jti=jti,
        )
        for at, of, action, reason, user, address, user_agent, jti in rows
    ]


def lines_of_connections(index: Index, endpoint: str, *, begin: str, end: str) -> Iterator[bytes]:
    """Read the lines of the connections to an endpoint that may have been open between two times, and those that say
    what the log lacks."""
    found = _either(
        index,
        (begin, end),
        f"action IN ('{Action.AUDIT_GAP}', '{Action.SUBSCRIPTIONS_AGGREGATED}')",
        f"""connection_key IN (
            SELECT accepted.connection_key FROM keys_around AS accepted {_NOT_ENDED} AND ended.place > accepted.place
            WHERE accepted.action = '{Action.CONNECT_ACCEPTED}' AND endpoint = $1 AND accepted.moment <= $2
        ) AND action IN ({SUBSCRIBED}, '{Action.CONNECTION_CLOSED}')""",
    )
    return index.lines("true", [endpoint, epoch_ms(end), epoch_ms(begin)], of=found)


def _either(index: Index, span: Span, *conditions: str) -> str:
    """Make the view `keys_around` of a span, and return a query for the rows that fulfil one of some conditions.

    With a query for each condition, DuckDB passes over the groups of rows that have no such action. With OR, it looks
    at all rows.
    """
    index.make_keys_around(span)
    columns = f"{index.order}, file, start, length"
    return f"({' UNION '.join(f'SELECT {columns} FROM keys_around WHERE {one}' for one in conditions)})"


_NOT_ENDED = f"""ANTI JOIN (
    SELECT connection_key, place FROM keys_around WHERE action = '{Action.CONNECTION_CLOSED}' AND moment <= $3
) AS ended ON ended.connection_key = accepted.connection_key"""
"""Leaves out the connections that ended until a time."""


def lines_of_address(index: Index, address: str, *, newest: int | None) -> Iterator[bytes]:
    """Read the span's lines whose records come from an address, or the `newest` of them."""
    return _lines_of(index, "address = $1", address, newest)


def lines_of_publisher(index: Index, name: str, *, newest: int | None) -> Iterator[bytes]:
    """Read the span's lines whose records are about a publisher or an operator who claims that name, or the newest."""
    return _lines_of(index, "(publisher = $1 OR claimed_name = $1)", name, newest)


def _lines_of(index: Index, where: str, name: str, newest: int | None) -> Iterator[bytes]:
    return index.lines(where, [name[:MAX_NAME]], newest=newest, of="spanned")


def lines(index: Index) -> Iterator[bytes]:
    """Read the lines of the span's records."""
    return index.lines("true", of="spanned")


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


class Stats(msgspec.Struct):
    """Counts of a log's records. `refusals` are by action and reason, and include denials that were only counted.

    `lost` are events that could not be recorded, by action.
    """

    records: int = 0
    first: str = ""
    last: str = ""
    actions: Counter[str] = msgspec.field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    endpoints: Counter[str] = msgspec.field(default_factory=Counter)
    users: Counter[str] = msgspec.field(default_factory=Counter)
    addresses: Counter[str] = msgspec.field(default_factory=Counter)
    lost: Counter[str] = msgspec.field(default_factory=Counter)


def stats(index: Index) -> Stats:
    """Count the span. Tokens and connects are counted by endpoint, refusals by user and address.

    Of equal counts, the one that came first is first.
    """

    found = _counted(index)
    for _, action, reason, count in refusals_by_day(index):
        found.refusals[action, reason] += count
    if any(summary.lacking for _, summary in index.summaries):
        for record in RecordReader().records(index.lines("lost != 0", of="rare_spanned")):
            found.lost.update(record.relay.lost)
    # after the refusals by day, which make the table
    for column, counts in (("user_id", found.users), ("address", found.addresses)):
        where = f"is_refusal AND {column} != ''"
        query = f"SELECT {column}, count(*) FROM refusals WHERE {where} GROUP BY 1 ORDER BY min(place)"
        counts.update(dict(index.rows(query)))
    return found


def _counted(index: Index) -> Stats:
    """Count the actions and the endpoints of the span. Without bounds, the parts have counted already."""
    counts = [(number, summary.counts) for number, summary in index.summaries]
    kinds: list[tuple[Any, ...]]
    if index.span == ("", None) and all(of_part is not None for _, of_part in counts):
        kinds = [(number, *kind) for number, of_part in counts for kind in of_part or ()]
        ends = [(one.earliest, one.latest) for _, one in index.summaries if one.records]
        found = Stats(records=sum(kind[3] for kind in kinds))
        if ends:
            found.first, found.last = min(first for first, _ in ends), max(last for _, last in ends)
    else:
        rows = index.rows(
            """
            SELECT file, action, endpoint, count(*), min(start), min(moment), max(moment)
            FROM spanned_keys GROUP BY 1, 2, 3"""
        )
        kinds = [row[:5] for row in rows]
        found = Stats(records=sum(kind[3] for kind in kinds))
        if rows:
            found.first, found.last = iso_of(min(row[5] for row in rows)), iso_of(max(row[6] for row in rows))
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
    found = _either(
        index,
        index.span,
        f"moment <= $3 AND action = '{Action.AUDIT_GAP}'",
        f"""moment <= $3 AND action IN ('{Action.CONNECT_ACCEPTED}', {TOLD}) AND connection_key IN (
            SELECT connection_key FROM keys_around WHERE action = '{Action.CONNECT_ACCEPTED}'
                AND (user_id = $1 OR session = $1 OR jti_key = hash($1) OR connection_key = hash($1))
            EXCEPT SELECT connection_key FROM keys_around
            WHERE action = '{Action.CONNECTION_CLOSED}' AND moment < $2
        )""",
    )
    return index.lines("true", [about[:MAX_NAME], *_in_ms(index.span)], of=found)


def _in_ms(span: Span) -> tuple[int, int]:
    """Return the bounds of a span as `keys` have times: Unix milliseconds."""
    begin, end = span
    return epoch_ms(begin) if begin else -NEVER, NEVER if end is None else epoch_ms(end)


def endpoints(index: Index) -> set[str]:
    """Return the endpoints that the log names."""
    counts = [summary.counts for _, summary in index.summaries]
    if None in counts:
        return {name for (name,) in index.rows("SELECT DISTINCT endpoint FROM keys")} - {""}
    return {kind[1] for of_part in counts for kind in of_part or ()} - {""}


def refusals_by_day(
    index: Index, *, day_of: Callable[[str], str] | None = None
) -> list[tuple[str, str, str, int]]:
    """Count the span's refusals: a day, an action, a reason, and how many, in the order of the first of them.

    `day_of` returns the day of a record's time. None: in UTC. Denials that were only counted belong to the day of the
    record that counts them.
    """
    index.execute(_REFUSALS)
    # the record of a refused frame or batch has the number of its publications
    many = f'sum(CASE WHEN action = \'{Action.PUBLISH_DENIED}\' AND "count" != 0 THEN "count" ELSE 1 END)::BIGINT'
    time = "substr(moment, 1, 10)" if day_of is None else "substr(moment, 1, 16) || ':00Z'"
    columns = f"{time}, action, reason"
    found: list[tuple[int, tuple[str, str, str], int]] = [
        (place, (day, action, reason), count)
        for day, action, reason, count, place in index.rows(
            f"SELECT {columns}, {many}, min(place) FROM refusals WHERE is_refusal GROUP BY {columns}"
        )
    ]
    for place, line in index.placed_lines("counts", of="refusals"):
        found += [  # denials beyond the budget
            (place, (record.at if day_of else record.at[:10], action, reason), count)
            for record in RecordReader().records([line])
            for action, reasons in record.relay.denied.items()
            for reason, count in reasons.items()
        ]
    counts: Counter[tuple[str, str, str]] = Counter()
    for _, (at, action, reason), count in sorted(found, key=lambda one: one[0]):
        counts[day_of(at) if day_of else at, action, reason] += count
    return [(*key, count) for key, count in counts.items()]


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer may lack: lines that are no record, and of the span the events and bytes that the log lost.

    `killed` counts the relays that ended without closing the log, and `absent` the records between two others of a
    chain that are not there.
    """

    unreadable: int
    lost: int
    cut: int
    killed: int
    absent: int


def missing(index: Index) -> Missing:
    """Return what is missing in the log."""
    summaries = [summary for _, summary in index.summaries]
    lost = cut = killed = 0
    if any(
        one.counts is None or any(kind[0] == Action.AUDIT_GAP for kind in one.counts) for one in summaries
    ):
        ((lost, cut, killed),) = index.rows(
            "SELECT coalesce(sum(lost), 0)::BIGINT, coalesce(sum(cut), 0)::BIGINT, count(*) FILTER (unclean_end) "
            f"FROM rare_spanned WHERE action = '{Action.AUDIT_GAP}'"
        )
    unreadable = sum(summary.bad for summary in summaries)
    return Missing(unreadable=unreadable, lost=lost, cut=cut, killed=killed, absent=_absent(index))


def _absent(index: Index) -> int:
    """Count the records that are missing between two others of a chain, as those of a file that was removed.

    The number of each part's last record and of its records tell, and the number of the log's first record. A part with
    records of several chains says nothing.
    """
    chains: dict[str, list[tuple[int, int, int]]] = {}
    unclear: set[str] = set()
    for number, one in index.summaries:
        if len(one.seqs) != 1:
            unclear |= one.seqs.keys()
        for writer, seq in one.seqs.items():
            chains.setdefault(writer, []).append((seq, one.records, number))
    absent = 0
    for writer in chains.keys() - unclear - {""}:
        parts = sorted(chains[writer])
        seq, records, number = parts[0]
        before = index.first_seq(number, writer)
        before = seq - records if before is None else before - 1
        for seq, records, _ in parts:
            absent += max(0, seq - records - before)
            before = seq
    return absent


class ChannelKeys(NamedTuple):
    """The `names_key` of records by what they say of a channel."""

    named: list[int]
    """Of subscriptions that name it."""
    unnamed: list[int]
    """Of subscriptions that may have it among the channels that they do not name."""
    told: list[int]
    """Of reports that name it or may have it."""
    granted: list[int]
    """Of connections whose token grants it."""


def keys_of_channel(index: Index, channel: str) -> ChannelKeys:
    """Find the records that may be about a channel."""
    keys = ChannelKeys([], [], [], [])
    for key, channels, scope, is_told, is_cut in index.rows(
        "SELECT DISTINCT names, channels, scope, is_told, is_cut FROM named_of_parts"
    ):
        if scope is not None and Scope(tuple(scope)).allows(channel):
            keys.granted.append(key)
        if any(covers(name, channel) for name in channels):
            (keys.told if is_told else keys.named).append(key)
        elif is_cut:
            (keys.told if is_told else keys.unnamed).append(key)
    return keys


def lines_of_subscribers(index: Index, keys: ChannelKeys, span: Span = ("", None)) -> Iterator[bytes]:
    """Read the lines of the connections that may have subscribed to a channel, and those that end or hide many of them.

    Their records name it, or do not name all channels, or subscriptions were only counted while they were open. Those
    that ended before a span of time, or began after it, are left out.
    """
    floods = index.rows(
        f"SELECT writer, {EPOCH_MS.format('min(since)')}, {EPOCH_MS.format('max(moment)')} FROM rare_lines "
        f"WHERE action = '{Action.SUBSCRIPTIONS_AGGREGATED}' GROUP BY 1"
    )
    hidden = f"""
            UNION SELECT accepted.connection_key FROM keys_around AS accepted ANTI JOIN (
                SELECT connection_key FROM keys_around WHERE action = '{Action.CONNECTION_CLOSED}' AND moment < ?
            ) AS ended ON ended.connection_key = accepted.connection_key
            WHERE accepted.action = '{Action.CONNECT_ACCEPTED}' AND writer = ? AND moment <= ?"""
    # a report counts while its connection is open; with other clocks or a name that is there twice, it may count
    of_connections = f"""
        action IN ({_OF_CONNECTIONS}) AND connection_key IN (
            SELECT connection_key FROM keys_around WHERE names_key IN (SELECT unnest(?::UBIGINT[]))
            UNION SELECT connection_key FROM keys_around WHERE names_key IN (SELECT unnest(?::UBIGINT[]))
                AND connection_key IN (
                    SELECT connection_key FROM keys_around WHERE names_key IN (SELECT unnest(?::UBIGINT[])))
            UNION SELECT connection_key FROM (
                SELECT connection_key, min(place) AS first, max(place) AS last, min(moment) AS since,
                    max(moment) AS until
                FROM keys_around WHERE names_key IN (SELECT unnest(?::UBIGINT[])) GROUP BY connection_key
            ) AS told JOIN (
                SELECT connection_key, min(place) FILTER (begins) AS begin, max(place) FILTER (begins) AS last_begin,
                    min(moment) FILTER (begins) AS since, max(moment) FILTER (begins) AS last_since,
                    min(place) FILTER (NOT begins) AS "end", min(moment) FILTER (NOT begins) AS until
                FROM (SELECT *, action = '{Action.CONNECT_ACCEPTED}' AS begins FROM keys_around)
                WHERE action IN ('{Action.CONNECT_ACCEPTED}', '{Action.CONNECTION_CLOSED}') AND connection_key IN (
                    SELECT connection_key FROM keys_around WHERE names_key IN (SELECT unnest(?::UBIGINT[])))
                GROUP BY connection_key
            ) AS life USING (connection_key)
            WHERE (told.last >= life.begin OR told.until >= life.since) AND ("end" IS NULL OR told.first <= "end"
                OR told.since <= life.until OR last_begin >= "end" OR last_since > life.until){hidden * len(floods)}
            EXCEPT SELECT connection_key FROM keys_around WHERE action = '{Action.CONNECTION_CLOSED}' AND moment <= ?
            EXCEPT SELECT connection_key FROM keys_around WHERE action = '{Action.CONNECT_ACCEPTED}' AND moment > ?
        )"""
    bounds = [bound for writer, first, last in floods for bound in (first, writer, last)]
    times = _in_ms(span)
    found = _either(
        index, span, of_connections, f"action IN ('{Action.AUDIT_GAP}', '{Action.SUBSCRIPTIONS_AGGREGATED}')"
    )
    return index.lines(
        "true", [keys.named, keys.unnamed, keys.granted, keys.told, keys.told, *bounds, *times], of=found
    )


def lines_of_reports(index: Index, keys: ChannelKeys) -> Iterator[bytes]:
    """Read the lines that may say what a connection was sent of a channel."""
    return index.lines("names_key IN (SELECT unnest(?::UBIGINT[]))", [keys.told], of="keys")


def lines_of_holders(index: Index, *, begin: str, end: str, expires: float) -> Iterator[bytes]:
    """Read the lines of what may be held between two times: connections, tokens, and what ends both.

    `expires` is the first of the two times, in Unix seconds.
    """
    found = _either(
        index,
        (begin, end),
        f"action IN ('{Action.AUDIT_GAP}', '{Action.SESSION_REVOKED}', '{Action.LOGOUT}')",
        f"""jti_key IN (
            SELECT jti_key FROM keys_around WHERE action = '{Action.TOKEN_ISSUED}' AND expires > $1 AND moment <= $2
        )""",
        f"""connection_key IN (
            SELECT accepted.connection_key FROM keys_around AS accepted {_NOT_ENDED}
            WHERE accepted.action = '{Action.CONNECT_ACCEPTED}' AND accepted.moment <= $2
        ) AND action IN (
            '{Action.CONNECT_ACCEPTED}', '{Action.CONNECTION_REFRESHED}', '{Action.CONNECTION_CLOSED}'
        )""",
    )
    return index.lines("true", [expires, epoch_ms(end), epoch_ms(begin)], of=found)


def lines_of_refused_grants(index: Index) -> Iterator[bytes]:
    """Read the span's lines that say that something was asked and not granted."""
    where = """
        action IN ('token.denied', 'subscribe.denied', 'denials.aggregated')
        OR action = 'token.issued' AND len(rejected) > 0"""
    return index.lines(where, of="rare_spanned")
