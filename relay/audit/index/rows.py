"""What the index has of a line of the log. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from relay.audit.query.records import Record

_MOST = (1 << 63) - 1
"""The largest number of a column. Only a forged line has a larger one."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One line: its place in the file, and of a record the fields that questions select by. `bad`: it is no record."""

    start: int
    length: int
    bad: bool = False
    moment: str = ""
    action: str = ""
    outcome: str = ""
    reason: str = ""
    user_id: str = ""
    address: str = ""
    endpoint: str = ""
    session: str = ""
    jti: str = ""
    connection: str = ""
    claimed_user: str = ""
    claimed_jti: str = ""
    marked: bool = False
    counts: bool = False
    """The record stands for others: it counts denials that have none of their own."""
    count: int = 0
    lost: int = 0
    unclean_end: bool = False


COLUMNS = {
    field.name: {int: "BIGINT", bool: "BOOLEAN", str: "VARCHAR"}[field.type]
    for field in msgspec.structs.fields(Row)
}
"""The type of each column. They are fixed and never inferred from what a log has."""

MAX_NAME = 4096
"""Characters that the index keeps of a text. The relay writes 256 at most; only a forged line has more."""
_LONG = 64 << 10

_decode = msgspec.json.Decoder(Record).decode


def rows_of(lines: Iterable[bytes], start: int) -> Iterator[Row]:
    """Return the rows of lines, the first of which is at `start` in its file. An empty line has none."""
    for line in lines:
        length = len(line)
        try:
            record = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if line.strip():
                yield Row(start, length, bad=True)
        else:
            row = _row(record, start, length)
            yield row if length < _LONG else _clipped(row)
        start += length


def _row(record: Record, start: int, length: int) -> Row:
    event, own = record.event, record.relay
    return Row(
        start,
        length,
        False,
        record.at,
        event.action,
        event.outcome,
        event.reason,
        record.user.id,
        record.client.ip,
        own.endpoint,
        own.session.ref,
        own.token.jti,
        own.connection.id,
        own.claimed.user,
        own.claimed.jti,
        bool(own.anomalies),
        bool(own.denied),
        _clamped(own.count),
        _clamped(sum(own.lost.values())),
        own.unclean_end,
    )


def _clipped(row: Row) -> Row:
    texts = {
        name: value[:MAX_NAME]
        for name, value in msgspec.structs.asdict(row).items()
        if isinstance(value, str)
    }
    return msgspec.structs.replace(row, **texts)


def _clamped(number: int) -> int:
    return max(-_MOST, min(number, _MOST))
