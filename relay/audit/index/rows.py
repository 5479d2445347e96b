"""What the index has of a line of the log. Pure."""

from collections.abc import Iterable, Iterator
from typing import get_type_hints

import msgspec

from relay.audit.query.records import Publications, Record, RelayFields, record_of
from relay.core.events import MAX_LIST, MAX_TEXT, SUBSCRIBE_ACTIONS, Action

_MOST = (1 << 63) - 1
"""The largest number of a column. Only a forged line has a larger one."""


SHORT: dict[str, str] = {}
"""The name of each column in the JSON that DuckDB reads. Long names would be a third of it."""


def _short(name: str) -> str:
    return SHORT.setdefault(name, f"{len(SHORT):x}")


class Row(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename=_short):
    """One line: its place in the file, and of a record the fields that questions need. `bad`: it is no record."""

    start: int
    length: int
    bad: bool = False
    moment: str = ""
    action: str = ""
    outcome: str = ""
    reason: str = ""
    detail: str = ""
    user_id: str = ""
    address: str = ""
    user_agent: str = ""
    origin: str = ""
    method: str = ""
    path: str = ""
    endpoint: str = ""
    session: str = ""
    roles: tuple[str, ...] = ()
    jti: str = ""
    kid: str = ""
    transport: str = ""
    scope: tuple[str, ...] = ()
    """The channels and patterns of the token."""
    expires: float | None = None
    asked: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    rejected_reasons: tuple[str, ...] = ()
    """Why each one of `rejected` was refused."""
    granted: str = ""
    """The granting roles of each channel, as JSON: only of a session with several roles."""
    connection: str = ""
    channels: tuple[str, ...] = ()
    count: int = 0
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    close_code: int | None = None
    initiator: str = ""
    duration_ms: int | None = None
    messages_out: int | None = None
    publisher: str = ""
    operator: str = ""
    revoked: str = ""
    connections: int = 0
    claimed_user: str = ""
    claimed_jti: str = ""
    claimed_name: str = ""
    """The publisher or operator that a refused credential says it is."""
    marks: tuple[str, ...] = ()
    counts: bool = False
    """The record stands for others: it counts denials that have none of their own."""
    since: str = ""
    published: str = ""
    """The rows of a summary of publications, and what has no row, as JSON."""
    lost: int = 0
    cut: int = 0
    unclean_end: bool = False
    writer: str = ""
    seq: int = 0


_TYPES: dict[object, tuple[str, str]] = {
    int: ("BIGINT", "0"),
    bool: ("BOOLEAN", "false"),
    str: ("VARCHAR", "''"),
    tuple[str, ...]: ("VARCHAR[]", "[]"),
    int | None: ("BIGINT", "NULL"),
    float | None: ("DOUBLE", "NULL"),
}

COLUMNS = {name: _TYPES[kind][0] for name, kind in get_type_hints(Row).items()}
"""The type of each column. They are fixed and never inferred from what a log has."""

DEFAULTS = {name: _TYPES[kind][1] for name, kind in get_type_hints(Row).items()}
"""The value of a column, as SQL has it, where a row has none: rows are short, and read fast, without them."""

_USUAL = ", ".join(
    f"'{action}'"
    for action in (
        Action.TOKEN_ISSUED,
        Action.CONNECT_ACCEPTED,
        Action.SUBSCRIBE_ACCEPTED,
        Action.CONNECTION_CLOSED,
        Action.CONNECTION_REFRESHED,
    )
)

USUAL_VALUES = {
    name: DEFAULTS[name]
    for name in (
        "bad",
        "detail",
        "method",
        "rejected",
        "rejected_reasons",
        "publisher",
        "operator",
        "revoked",
        "connections",
        "claimed_user",
        "claimed_jti",
        "claimed_name",
        "marks",
        "counts",
        "published",
        "lost",
        "cut",
        "unclean_end",
    )
} | {"outcome": "'success'"}
"""The columns that have the same value in all rows that are not `rare`, and that value, as SQL has it."""

TOLD = f"'{Action.CONNECTION_CHANNELS}', '{Action.CONNECTION_CLOSED}'"
"""Actions whose records have what a connection was sent."""

SUBSCRIBED = ", ".join(f"'{action}'" for action in sorted(SUBSCRIBE_ACTIONS))
"""Actions whose records have the channels that a connection subscribed to."""

DERIVED = {
    "jti_key": ("UBIGINT", "hash(jti)"),
    "connection_key": ("UBIGINT", "hash(connection)"),
    "grants_key": (
        "UBIGINT",
        f"CASE WHEN action = '{Action.TOKEN_ISSUED}' THEN hash(endpoint, roles, scope, granted) ELSE 0 END",
    ),
    "use_key": (
        "UBIGINT",
        f'CASE WHEN action IN ({SUBSCRIBED}) AND "count" + len(channels) > 0 '
        'THEN hash(endpoint, user_id, channels, "count" > len(channels)) '
        f"WHEN action = '{Action.CONNECTION_CLOSED}' AND len(used) > 0 THEN hash(endpoint, user_id, used) ELSE 0 END",
    ),
    "names_key": (
        "UBIGINT",
        f"CASE WHEN action = '{Action.CONNECT_ACCEPTED}' THEN hash(channels, \"count\" > len(channels), scope) "
        f'WHEN action IN ({SUBSCRIBED}) AND "count" + len(channels) > 0 '
        'THEN hash(channels, "count" > len(channels)) '
        f'WHEN action IN ({TOLD}) AND "count" + len(channels) > 0 THEN hash(channels, "count" > 0, 0) ELSE 0 END',
    ),
    "rare": (
        "BOOLEAN",
        f"action NOT IN ({_USUAL}) OR "
        + " OR ".join(
            f"len({name}) > 0" if COLUMNS[name] == "VARCHAR[]" else f"{name} != {value}"
            for name, value in USUAL_VALUES.items()
        ),
    ),
}
"""Columns that are made of the others, with their types and how they are made.

Numbers are found and joined faster than texts. `use_key` stands for the channels or grants that a connection of a user
used, and `names_key` for the channels that a record of any connection names. Rows that are not `rare` are almost all,
and say only that something usual went well: a question about anything else passes over them. Lines that are no record
are rare too.
"""

MAX_NAME = 4096
"""Characters that the index keeps of a text. The relay writes 256 at most; only a forged line has more."""
_LONG = 64 << 10

_encode = msgspec.json.Encoder().encode


def rows_of(lines: Iterable[bytes], start: int) -> Iterator[Row]:
    """Return the rows of lines, the first of which is at `start` in its file. An empty line has none."""
    for line in lines:
        length = len(line)
        try:
            record = record_of(line)
        except ValueError:
            if line.strip():
                yield Row(start, length, bad=True)
        else:
            row = _row(record, start, length)
            yield row if length < _LONG else _clipped(row)
        start += length


def _row(record: Record, start: int, length: int) -> Row:
    event, own = record.event, record.relay
    session, token, connection, claimed = own.session, own.token, own.connection, own.claimed
    return Row(
        start,
        length,
        False,
        record.at,
        event.action,
        event.outcome,
        event.reason,
        own.detail,
        record.user.id,
        record.client.ip,
        record.user_agent.original,
        own.origin,
        own.method,
        record.url.path,
        own.endpoint,
        session.ref,
        session.roles,
        token.jti,
        token.kid,
        token.transport,
        token.channels,
        token.exp,
        own.asked.channels,
        tuple([one.channel for one in own.rejected]) if own.rejected else (),
        tuple([one.reason for one in own.rejected]) if own.rejected else (),
        _encode(own.granted).decode() if own.granted else "",
        connection.id,
        own.channels
        or (tuple([one.channel for one in told]) if (told := own.publications or own.sent) else ()),
        _clamped(count) if (count := own.count or own.others.count) else 0,
        connection.scopes.used,
        connection.scopes.unused,
        None if connection.close_code is None else _clamped(connection.close_code),
        connection.initiator,
        None if connection.duration_ms is None else _clamped(connection.duration_ms),
        None if connection.messages_out is None else _clamped(connection.messages_out),
        own.publisher.id,
        own.operator.id,
        own.revoked,
        _clamped(own.connections) if own.connections else 0,
        claimed.user,
        claimed.jti,
        claimed.publisher or claimed.operator,
        own.anomalies,
        bool(own.denied),
        own.since,
        _published(own) if own.publications or own.others.count else "",
        _clamped(sum(own.lost.values())) if own.lost else 0,
        _clamped(own.cut) if own.cut else 0,
        own.unclean_end,
        own.chain.writer,
        _clamped(own.chain.seq),
    )


def _published(own: RelayFields) -> str:
    rows = own.publications if own.others == Publications() else (*own.publications, own.others)
    return _encode(rows).decode()


def _clipped(row: Row) -> Row:
    """Return the row of a line that is longer than the relay writes, without what makes it long."""
    short: dict[str, object] = {}
    for name, value in msgspec.structs.asdict(row).items():
        if isinstance(value, str):
            short[name] = value[:MAX_NAME]
        elif isinstance(value, tuple):
            short[name] = tuple(text[:MAX_TEXT] for text in value[:MAX_LIST])
    # a part of these would be no JSON
    short |= {name: "" for name in ("granted", "published") if len(getattr(row, name)) > MAX_NAME}
    return msgspec.structs.replace(row, **short)


def _clamped(number: int) -> int:
    return number if -_MOST <= number <= _MOST else _MOST if number > 0 else -_MOST
