"""What the index says to an auditor about a span of the log: the content of `relay audit report`."""

from collections import Counter, deque
from dataclasses import dataclass
from itertools import chain

import msgspec

from relay.audit.index.database import Index, Known
from relay.audit.index.privileges import GrantUse, grant_uses
from relay.audit.index.questions import (
    Marked,
    Missing,
    Stats,
    lines_of_refused_grants,
    marked,
    missing,
    refusals_by_day,
    stats,
)
from relay.audit.query.explain import explain
from relay.audit.query.records import Record, RecordReader, iso_of
from relay.audit.query.refused import refused_grants
from relay.core.events import Action

MOST_ROWS = 500
"""Rows of a list of records: the newest ones. Counts are of all records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotGranted:
    """What was asked and not granted, counted by what asked (`token` or `subscription`), endpoint and reason.

    `count` has the channels, and the requests that named none.
    """

    asked_for: str
    endpoint: str
    reason: str
    count: int
    users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of an operator that read only or were refused, counted."""

    operator: str
    call: str
    reason: str
    count: int
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that an administrator did: a revocation, another changing call, a reload, a change of keys."""

    at: str
    who: str
    action: str
    what: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of them. The newest records are first.

    `known` is of the whole log, everything else of the span.
    """

    known: Known
    stats: Stats
    missing: Missing
    tokens_by_day: Counter[str]
    refusals_by_day: Counter[str]
    grants: list[GrantUse]
    not_granted: list[NotGranted]
    marks: Counter[str]
    marked: list[Marked]
    calls: list[Calls]
    changes: list[Change]
    changes_in_all: int
    gaps: list[Record]
    gaps_in_all: int


def findings(index: Index) -> Findings:
    """Ask all that the report says of the span."""
    changes, changes_in_all = _newest(index, _CHANGES)
    gaps, gaps_in_all = _newest(index, f"action = '{Action.AUDIT_GAP}'")
    return Findings(
        known=index.known(),
        stats=stats(index),
        missing=missing(index),
        tokens_by_day=_tokens_by_day(index),
        refusals_by_day=_refusals_by_day(index),
        grants=grant_uses(index),
        not_granted=_not_granted(index),
        marks=Counter(
            dict(
                index.rows(
                    "SELECT mark, count(*) FROM (SELECT unnest(marks) AS mark FROM rare_spanned) GROUP BY 1"
                )
            )
        ),
        marked=marked(index, newest=MOST_ROWS),
        calls=_calls(index),
        changes=[_change(line, record) for line, record in changes],
        changes_in_all=changes_in_all,
        gaps=[record for _, record in gaps],
        gaps_in_all=gaps_in_all,
    )


_CHANGING = f"action = '{Action.OPERATOR_ACTION}' AND method != 'GET' AND reason = ''"
_CHANGES = (
    f"({_CHANGING}) OR (action = '{Action.SESSION_REVOKED}' AND operator != '') "
    f"OR action IN ('{Action.KEY_ROTATED}', '{Action.RELOAD_SUCCEEDED}', '{Action.RELOAD_FAILED}')"
)
"""Without an operator, a session was revoked by its user's log-out, or because a key was: those have other records."""


def _newest(index: Index, where: str) -> tuple[list[tuple[bytes, Record]], int]:
    """Return the newest records that fulfil a condition, and how many do."""
    kept: deque[tuple[bytes, Record]] = deque(maxlen=MOST_ROWS)
    count = 0
    for found in RecordReader().with_lines(index.lines(where, of="rare_spanned")):
        kept.append(found)
        count += 1
    return list(reversed(kept)), count


def _tokens_by_day(index: Index) -> Counter[str]:
    issued = f"FROM spanned_keys WHERE action = '{Action.TOKEN_ISSUED}'"
    days = index.rows(f"SELECT floor(moment / 86400000)::BIGINT AS day, count(*) {issued} GROUP BY day")
    return Counter({iso_of(day * 86_400_000)[:10]: count for day, count in days})


def _refusals_by_day(index: Index) -> Counter[str]:
    found: Counter[str] = Counter()
    for day, _, _, count in refusals_by_day(index):
        found[day] += count
    return found


def _not_granted(index: Index) -> list[NotGranted]:
    refused = refused_grants(RecordReader().records(lines_of_refused_grants(index)))
    counts: Counter[tuple[str, str, str]] = Counter()
    users: dict[tuple[str, str, str], set[str]] = {}
    for one in refused:
        key = one.asked_for, one.endpoint, one.reason
        counts[key] += one.count
        users.setdefault(key, set()).add(one.user)
    return [
        NotGranted(
            asked_for=asked_for,
            endpoint=endpoint,
            reason=reason,
            count=count,
            users=len(users[asked_for, endpoint, reason] - {""}),
        )
        for (asked_for, endpoint, reason), count in counts.most_common()
    ]


def _calls(index: Index) -> list[Calls]:
    rows = index.rows(
        f"""
        SELECT operator, concat_ws(' ', nullif(method, ''), path), reason, count(*), max(moment) FROM rare_spanned
        WHERE action IN ('{Action.OPERATOR_ACTION}', '{Action.AUDIT_READ}') AND NOT ({_CHANGING})
        GROUP BY ALL ORDER BY 4 DESC, 1, 2, 3"""
    )
    return [
        Calls(operator=operator, call=call, reason=reason, count=count, last=last)
        for operator, call, reason, count, last in rows
    ]


def _change(line: bytes, record: Record) -> Change:
    is_keys = record.event.action == Action.KEY_ROTATED
    return Change(
        at=record.at,
        who=record.relay.operator.id,
        action=record.event.action,
        what=" ".join(chain([explain(record)], _keys(line) if is_keys else ())),
        address=record.client.ip,
    )


class _Keys(msgspec.Struct, frozen=True):
    signing: str = ""
    published: tuple[str, ...] = ()
    dropped: dict[str, str] = {}


class _KeyFields(msgspec.Struct, frozen=True):
    keys: _Keys = _Keys()


class _KeyRecord(msgspec.Struct, frozen=True):
    relay: _KeyFields = _KeyFields()


def _keys(line: bytes) -> list[str]:
    """Return what the record of a change of keys says of them. A forged one may say anything."""
    try:
        keys = msgspec.json.decode(line, type=_KeyRecord).relay.keys
    except msgspec.DecodeError:
        return []
    dropped = ", ".join(f"{kid} ({why})" for kid, why in keys.dropped.items())
    parts = {"Signs with": keys.signing, "Published:": ", ".join(keys.published), "Dropped:": dropped}
    return [f"{name} {value}." for name, value in parts.items() if value]
