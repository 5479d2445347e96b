"""The newest records of a log, or those about one token, connection, session or user, for the operators' page.

The file is read backwards from its end, on a thread of the caller. `relay audit` reads the whole log. Lines are
filtered as bytes before they are parsed: a search of 32 MB takes some 50 ms, and the interpreter can send prices in
between.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

MAX_BYTES = 32 << 20
"""Bytes that are read at most, from the end: some 40,000 records."""
_BLOCK = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentQuery:
    """Which records to find: their action, their outcome and their subject; "" for any.

    `about` is a token's `jti`, a connection's id, a session's reference or a user. `after` and `before` are numbers in
    the chain; only records between the two match.
    """

    limit: int
    action: str = ""
    outcome: str = ""
    about: str = ""
    after: int = 0
    before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentRecords:
    """Records, newest first. `whole` is False if the search ended early, so that older records may match as well."""

    records: list[dict[str, Any]]
    whole: bool


def find_recent(paths: Sequence[Path], query: RecentQuery) -> RecentRecords:
    """Return the newest records that match. `paths` are the log's files, oldest first.

    Raises:
        OSError: if a file can't be read.
    """
    # in the log's canonical form; a line may have these texts in another member, so `_matches` checks again
    needles = [json.dumps(text).encode() for text in (query.action, query.outcome, query.about) if text]
    records: list[dict[str, Any]] = []
    for line in newest_lines(paths):
        if line is None:
            return RecentRecords(records=records, whole=False)
        if not query.after and not all(needle in line for needle in needles):
            continue
        record = _parse(line)
        if record is None:
            continue
        seq = record["relay"]["chain"]["seq"]
        if seq <= query.after:
            break
        if _matches(record, seq, query):
            records.append(record)
            if len(records) == query.limit:
                return RecentRecords(records=records, whole=False)
    return RecentRecords(records=records, whole=True)


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


def _matches(record: dict[str, Any], seq: int, query: RecentQuery) -> bool:
    event = record["event"]
    return (
        (query.before is None or seq < query.before)
        and query.action in ("", event.get("action"))
        and query.outcome in ("", event.get("outcome"))
        and (not query.about or query.about in subjects_of(record))
    )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = msgspec.json.decode(line)
        return record if isinstance(record["relay"]["chain"]["seq"], int) and record["event"] else None
    except (msgspec.DecodeError, KeyError, TypeError):
        return None  # a torn or damaged line, which `relay audit verify` names


def newest_lines(paths: Sequence[Path]) -> Iterator[bytes | None]:
    """Yield the lines of the files, newest first; None after `MAX_BYTES` if there are more lines.

    Raises:
        OSError: if a file can't be read.
    """
    room = MAX_BYTES
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
