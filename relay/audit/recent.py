"""The newest records of a log, or those about one token, connection, session or user, for the operators' page.

Files are read backwards from their ends, on a thread of the caller. `relay audit` reads the whole log. Lines are
filtered as bytes before they are parsed: a search of 32 MB takes some 50 ms, and the interpreter can send prices in
between.
"""

import heapq
import json
import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from relay.audit.merge import time_of
from relay.audit.query.records import RecordReader, having
from relay.audit.query.timeline import Step, timeline_of

MAX_BYTES = 32 << 20
"""Bytes that are read at most, from the end: some 40,000 records."""
_BLOCK = 256 << 10


class RecentQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which records to find: their action, their outcome and their subject; "" for any.

    `about` is a token's `jti`, a connection's id, a session's reference or a user. `after` and `before` are positions;
    only records between the two match.
    """

    limit: int
    action: str = ""
    outcome: str = ""
    about: str = ""
    after: int = 0
    before: int | None = None


class RecentRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Records, newest first. `whole` is False if the search ended early, so that older records may match as well.

    `positions` has one for each record: its number in the chain; or, in a log of several chains, a number that begins
    with its time.
    """

    records: list[dict[str, Any]]
    positions: list[int]
    whole: bool


class RecentTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """The newest steps of a timeline, oldest first. `whole` is False if there may be older ones."""

    steps: Sequence[Step]
    whole: bool


def find_recent(chains: Sequence[Sequence[Path]], query: RecentQuery) -> RecentRecords:
    """Return the newest records that match. `chains` are the log's files, those of a chain oldest first.

    Raises:
        OSError: if a file can't be read.
    """
    # in the log's canonical form; a line may have these texts in another member, so `_matches` checks again
    needles = [json.dumps(text).encode() for text in (query.action, query.outcome, query.about) if text]
    position_of = _number if len(chains) == 1 else _number_by_time
    found = RecentRecords(records=[], positions=[], whole=True)
    for line in newest_lines(chains):
        if line is None:
            return msgspec.structs.replace(found, whole=False)
        if not query.after and not all(needle in line for needle in needles):
            continue
        record = _parse(line)
        if record is None:
            continue
        position = position_of(record)
        if position <= query.after:
            break
        if _matches(record, position, query):
            found.records.append(record)
            found.positions.append(position)
            if len(found.records) == query.limit:
                return msgspec.structs.replace(found, whole=False)
    return found


def _number(record: dict[str, Any]) -> int:
    number: int = record["relay"]["chain"]["seq"]
    return number


def _number_by_time(record: dict[str, Any]) -> int:
    """Return 18 digits: the milliseconds of the record's time, and five that tell it from others of the same one."""
    chain = record["relay"]["chain"]
    at_ms = int(datetime.fromisoformat(record["@timestamp"]).timestamp() * 1000)
    writer = zlib.crc32(str(chain["writer"]).encode()) % 100
    return (at_ms * 100 + writer) * 1000 + int(chain["seq"]) % 1000


def subjects_of(record: dict[str, Any]) -> set[str]:
    """Return the subjects of a record: its user, session, token and connection."""
    own = record.get("relay", {})
    found = (
        record.get("user", {}).get("id"),
        *(
            own.get(kind, {}).get(name)
            for kind, name in (("session", "ref"), ("token", "jti"), ("connection", "id"))
        ),
    )
    return {text for text in found if isinstance(text, str)}


def _matches(record: dict[str, Any], position: int, query: RecentQuery) -> bool:
    event = record["event"]
    return (
        (query.before is None or position < query.before)
        and query.action in ("", event.get("action"))
        and query.outcome in ("", event.get("outcome"))
        and (not query.about or query.about in subjects_of(record))
    )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = msgspec.json.decode(line)
        _number_by_time(record)
        return record if isinstance(record["relay"]["chain"]["seq"], int) and record["event"] else None
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None  # a torn or damaged line, which `relay audit verify` names


def recent_timeline(chains: Sequence[Sequence[Path]], about: str, *, limit: int) -> RecentTimeline:
    """Return the newest `limit` steps of a timeline, as far back as `newest_lines` reads.

    Raises:
        OSError: if the log can't be read.
    """
    whole = True

    def lines(names: Collection[str]) -> Iterator[bytes]:
        nonlocal whole
        may_have_one = having(*names)
        for line in newest_lines(chains):
            if line is None:
                whole = False
                return
            if may_have_one(line):
                yield line

    reader = RecordReader()
    steps = timeline_of(lines, about, reader=reader, limit=limit)
    return RecentTimeline(steps=steps[::-1], whole=whole and len(steps) < limit and not reader.is_cut)


def newest_lines(chains: Sequence[Sequence[Path]]) -> Iterator[bytes | None]:
    """Yield the lines of the chains' files, newest first; None after `MAX_BYTES` if there are more lines.

    Lines of several chains are in the order of their times, and each chain has its share of `MAX_BYTES`.

    Raises:
        OSError: if a file can't be read.
    """
    if len(chains) == 1:
        return _newest_of(chains[0], MAX_BYTES)
    keyed = [
        _keyed(_newest_of(chain, MAX_BYTES // len(chains)), number) for number, chain in enumerate(chains)
    ]
    return (line for _, _, line in heapq.merge(*keyed, reverse=True))


def _keyed(lines: Iterator[bytes | None], number: int) -> Iterator[tuple[bytes, int, bytes | None]]:
    earliest = b"~"
    for line in lines:
        if line is not None and (time := time_of(line)):
            earliest = min(earliest, time)
        yield earliest, number, line  # two items of `heapq.merge` never have the same number


def _newest_of(paths: Sequence[Path], room: int) -> Iterator[bytes | None]:
    for path in reversed(paths):
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            rest = b""
            while end and room:
                start = max(0, end - min(_BLOCK, room))
                first, *lines = (os.pread(file.fileno(), end - start, start) + rest).split(b"\n")
                yield from (line for line in reversed(lines) if line)
                room -= end - start
                rest, end = first, start
        if end:
            yield None
            return
        if rest:
            yield rest
