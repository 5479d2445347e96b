"""Questions that the index answers: the lines that an answer needs, or the counts of all of them.

Each condition selects at least the lines that the question's own function needs, which then looks at them as it would
at the whole log.
"""

from collections.abc import Collection, Iterator

from relay.audit.index.database import Index
from relay.audit.index.rows import MAX_NAME
from relay.audit.query.records import RecordReader
from relay.audit.query.summaries import Stats
from relay.core.events import Action

_IN_SPAN = "moment >= ? AND (? IS NULL OR moment <= ?)"
_IDS = ("jti", "connection", "user_id", "session", "claimed_user", "claimed_jti")


def lines_naming(index: Index, names: Collection[str]) -> Iterator[bytes]:
    """Read the lines whose records have one of these names: of a token, a connection, a session or a user."""
    marks = ", ".join("?" * len(names))
    return index.lines(
        " OR ".join(f"{column} IN ({marks})" for column in _IDS),
        [name[:MAX_NAME] for name in names] * len(_IDS),
    )


def lines_with_marks(index: Index) -> Iterator[bytes]:
    """Read the lines whose records have an anomaly mark."""
    return index.lines("marked")


def lines_of_connections(index: Index, endpoint: str, *, begin: str, end: str) -> Iterator[bytes]:
    """Read the lines of the connections to an endpoint that may have been open between two times, and all gaps."""
    where = """
        action = 'audit.gap' OR (
            action IN ('connect.accepted', 'subscribe.accepted', 'connection.closed') AND connection IN (
                SELECT connection FROM lines AS accepted
                WHERE action = 'connect.accepted' AND endpoint = ? AND moment <= ? AND NOT EXISTS (
                    SELECT 1 FROM lines AS closed
                    WHERE closed.action = 'connection.closed' AND closed.connection = accepted.connection
                        AND closed.moment <= ? AND closed.place > accepted.place
                )
            )
        )"""
    return index.lines(where, [endpoint, end, begin])


def names(index: Index, reader: RecordReader) -> set[str]:
    """Return the users, sessions, tokens and connections that the records of the reader's span name."""
    return {name for column in _IDS[:4] for name in distinct(index, reader, column)}


def distinct(index: Index, reader: RecordReader, column: str) -> set[str]:
    """Return the values of a column in the reader's span that are not empty."""
    since, until = reader.span
    query = f"SELECT DISTINCT {column} FROM lines WHERE {column} != '' AND {_IN_SPAN}"
    return {value for (value,) in index.rows(query, [since, until, until])}


def stats(index: Index, reader: RecordReader) -> Stats:
    """Count the log, as `relay.audit.query.summaries.stats` does. Of equal counts, the one that came first is first."""
    since, until = reader.span
    condition = f"NOT bad AND {_IN_SPAN}"
    span = [since, until, until]

    def counted(columns: str, count: str, where: str) -> list[tuple[object, ...]]:
        query = (
            f"SELECT {columns}, {count}, min(place) FROM lines WHERE {condition} AND {where} "
            f"GROUP BY {columns} ORDER BY min(place)"
        )
        return index.rows(query, span)

    ends = f"SELECT count(*), arg_min(moment, place), arg_max(moment, place) FROM lines WHERE {condition}"
    (total, first, last) = index.rows(ends, span)[0]
    found = Stats(records=total, first=first or "", last=last or "")
    for action, count, _ in counted("action", "count(*)", "true"):
        found.actions[str(action)] += int(str(count))
    with_endpoint = f"action IN ('{Action.TOKEN_ISSUED}', '{Action.CONNECT_ACCEPTED}')"
    for endpoint, count, _ in counted("endpoint", "count(*)", with_endpoint):
        found.endpoints[str(endpoint)] += int(str(count))
    refused = "reason != '' AND outcome = 'failure'"
    many = f'sum(CASE WHEN action = \'{Action.PUBLISH_DENIED}\' AND "count" != 0 THEN "count" ELSE 1 END)::BIGINT'
    refusals = [
        (int(str(place)), (str(action), str(reason)), int(str(count)))
        for action, reason, count, place in counted("action, reason", many, refused)
    ]
    for place, line in index.placed_lines(f"{condition} AND (counts OR lost != 0)", span):
        for record in reader.records([line]):
            refusals += [
                (place, (action, reason), count)
                for action, reasons in record.relay.denied.items()
                for reason, count in reasons.items()
            ]
            found.lost.update(record.relay.lost)
    for _, key, count in sorted(refusals, key=lambda one: one[0]):
        found.refusals[key] += count
    for user, count, _ in counted("user_id", "count(*)", f"{refused} AND user_id != ''"):
        found.users[str(user)] += int(str(count))
    for address, count, _ in counted("address", "count(*)", f"{refused} AND address != ''"):
        found.addresses[str(address)] += int(str(count))
    return found


def missing(index: Index, reader: RecordReader) -> tuple[int, int]:
    """Return the lines that are no record, and the events of the reader's span that the log reports as lost."""
    since, until = reader.span
    query = f"SELECT count(*) FILTER (bad), coalesce(sum(lost) FILTER ({_IN_SPAN}), 0)::BIGINT FROM lines"
    unreadable, lost = index.rows(query, [since, until, until])[0]
    return unreadable, lost
