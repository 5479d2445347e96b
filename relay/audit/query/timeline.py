"""The timeline of a token, a connection, a session or a user, an address or a publisher: what happened, in order and in
plain words.
"""

import math
from collections.abc import Callable, Collection, Iterable

import msgspec

from relay.audit.query.explain import explain
from relay.audit.query.records import Record, RecordReader

Lines = Callable[[Collection[str]], Iterable[bytes]]
"""Reads the lines whose records may have one of some names; called once for each pass. It may read all lines."""

_MAX_CLAIMED = 50
"""Records of a limited timeline that only claim to belong to it. Anybody can cause them, and must not fill it."""

_PASSES = 4
"""A connection leads to its token, and a refresh leads to the next token. A longer timeline may miss its ends."""


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event of a timeline. `sentence` says what happened, and `marks` are the anomalies."""

    number: int
    at: str
    action: str
    outcome: str
    reason: str
    user: str
    address: str
    origin: str
    token: str
    connection: str
    sentence: str
    marks: tuple[str, ...]


def timeline_of(lines: Lines, about: str, *, reader: RecordReader, limit: int | None = None) -> list[Step]:
    """Return the timeline of a token's `jti`, a connection's id, a session's reference, or a user, in the log's order.

    The timeline of a token or connection has every record with one of their ids. That of a session or user has every
    record with its name. Both also have the refusals of credentials that only claim `about`; these lead to no other
    record. At most the first `limit` steps are returned.
    """
    known = {about}
    for _ in range(_PASSES):
        found, owned = _read(lines, reader, known, limit, about)
        ids = {name for record in found if not known.isdisjoint(_ids(record)) for name in _ids(record)} - {""}
        if ids <= known:
            break
        known |= ids
    return [_step(record) for record in (found if ids else owned)]


def of_address(records: Iterable[Record], address: str) -> list[Step]:
    """Return what came from an address. It leads to no other record: many users can share an address."""
    return [_step(record) for record in records if record.client.ip == address]


def of_publisher(records: Iterable[Record], name: str) -> list[Step]:
    """Return what a publisher did, and the refusals of keys that only claim to be its own."""
    return [
        _step(record)
        for record in records
        if name in (record.relay.publisher.id, record.relay.claimed.publisher)
    ]


def _read(
    lines: Lines, reader: RecordReader, names: set[str], limit: int | None, about: str
) -> tuple[list[Record], list[Record]]:
    """Return the records of tokens and connections with one of `names`, and those of users and sessions.

    Both have the records that claim `about`.
    """
    claims_left = math.inf if limit is None else _MAX_CLAIMED
    found: list[Record] = []
    owned: list[Record] = []
    for record in reader.records(lines(names)):
        is_found = not names.isdisjoint(_ids(record))
        is_owned = not names.isdisjoint(_owners(record))
        claimed = record.relay.claimed
        if not is_found and about in (claimed.jti, claimed.user):
            claims_left -= 1
            reader.is_cut |= claims_left < 0
            is_found = claims_left >= 0
            is_owned |= is_found
        if is_found:
            found.append(record)
        if is_owned and (limit is None or len(owned) < limit):
            owned.append(record)
        if len(found) == limit:
            break
    return found, owned


def _ids(record: Record) -> tuple[str, str]:
    return record.relay.token.jti, record.relay.connection.id


def _owners(record: Record) -> tuple[str, str]:
    return record.user.id, record.relay.session.ref


def _step(record: Record) -> Step:
    own = record.relay
    return Step(
        number=own.chain.seq,
        at=record.at,
        action=record.event.action,
        outcome=record.event.outcome,
        reason=record.event.reason,
        user=record.user.id,
        address=record.client.ip,
        origin=own.origin,
        token=own.token.jti,
        connection=own.connection.id,
        sentence=explain(record),
        marks=own.anomalies,
    )
