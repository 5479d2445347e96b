"""Answers for all workers of a machine, made of the answer of each: sums, and lists in one order.

Every answer gets `workers`: the number of those that it is made of, and the numbers of those that did not answer.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from starlette.requests import Request

from relay.ops.operators import Handler, HandlerResult
from relay.ops.paging import DEFAULT_ROWS
from relay.web.answers import json_answer

Answer = Mapping[str, Any]
Merge = Callable[[Sequence[Answer], Mapping[str, str]], dict[str, Any]]
"""Makes one answer of several; the second argument is the query."""

_SUMS_OF_SECONDS = {"total_s", "cpu_s"}
_OF_ONE = {"bounds_s", "version", "role"}
_LARGEST = {"at", "started_at", "channels", "stale", "publications", "duplicates"}
"""Every worker has each channel and gets each publication, so a sum would count them once for each worker. Since the
latest `started_at`, no count has begun again."""
_SMALLEST = {"newest_s", "silent_s"}


class Others(Protocol):
    """How the other workers are asked: see `relay.server.peers`."""

    async def __call__(self, path: str, query: str) -> tuple[Sequence[Any], Sequence[int]]:
        """Return the answers of the others, and the numbers of those that did not answer."""
        ...


def of_all(handler: Handler, merge: Merge, ask: Others) -> Handler:
    """Return a handler that answers for all workers. `handler` answers for this one, and checks the query."""

    async def serve(request: Request, operator: str) -> HandlerResult:
        own = await handler(request, operator)
        others, silent = await ask(request.url.path, request.url.query)
        answers = [json.loads(bytes(own.response.body)), *others]
        merged = merge(answers, request.query_params) | {
            "workers": {"answered": len(answers), "silent": list(silent)}
        }
        return replace(own, response=json_answer(200, merged))

    return serve


def merged_stats(answers: Sequence[Answer], _query: Mapping[str, str]) -> dict[str, Any]:
    """Return the sums of /v1/stats. Of ages and delays, the worst worker's."""
    merged: dict[str, Any] = _merged("", list(answers))
    counts: dict[tuple[str, ...], int] = {}
    for event in (event for answer in answers for event in answer["events"]):
        labels = tuple(str(event[name]) for name in ("action", "outcome", "reason", "endpoint"))
        counts[labels] = counts.get(labels, 0) + event["count"]
    merged["events"] = [
        dict(zip(("action", "outcome", "reason", "endpoint"), labels, strict=True)) | {"count": count}
        for labels, count in counts.items()
    ]
    return merged


def merged_publishers(answers: Sequence[Answer], _query: Mapping[str, str]) -> dict[str, Any]:
    """Return the sums of /v1/publishers."""
    rows: dict[str, dict[str, Any]] = {}
    summed = ("connections", "published", "bytes", "alive", "refused", "stale", "duplicate")
    for row in (row for answer in answers for row in answer["publishers"]):
        if (known := rows.get(row["publisher"])) is None:
            rows[row["publisher"]] = dict(row)
            continue
        for name in summed:
            known[name] += row[name]
        known["last_at"] = max(known["last_at"] or 0, row["last_at"] or 0) or None
    return {"at": max(answer["at"] for answer in answers), "publishers": list(rows.values())}


def merged_channels(answers: Sequence[Answer], query: Mapping[str, str]) -> dict[str, Any]:
    """Return the channels of /v1/channels by name, with the subscribers of all workers."""
    rows: dict[str, dict[str, Any]] = {}
    for row in (row for answer in answers for row in answer["channels"]):
        known = rows.get(row["channel"])
        subscribers = row["subscribers"] + (known["subscribers"] if known else 0)
        newest = row if known is None or row["last_at"] > known["last_at"] else known
        rows[row["channel"]] = {**newest, "subscribers": subscribers}
    page = [rows[name] for name in sorted(rows)][: _limit(query)]
    return {
        "total": max(answer["total"] for answer in answers),
        "channels": page,
        "next": page[-1]["channel"] if len(page) == _limit(query) else None,
    }


def merged_connections(answers: Sequence[Answer], query: Mapping[str, str]) -> dict[str, Any]:
    """Return the page of /v1/connections: the oldest of all workers."""
    rows = [row for answer in answers for row in answer["connections"]]
    rows.sort(key=lambda row: (row["opened_at"], UUID(row["id"]).int))
    page = rows[: _limit(query)]
    last = page[-1] if len(page) == _limit(query) else None
    return {
        "total": sum(answer["total"] for answer in answers),
        "connections": page,
        "next": None if last is None else f"{last['opened_at']:.9f}~{last['id']}",
    }


def _limit(query: Mapping[str, str]) -> int:
    return int(query.get("limit", DEFAULT_ROWS))


def _merged(name: str, values: Sequence[Any]) -> Any:
    """Return one value for those of all workers. Numbers are added up, unless their name says otherwise."""
    values = [value for value in values if value is not None]
    if not values or name in _OF_ONE:
        return values[0] if values else None
    first = values[0]
    if isinstance(first, dict):
        names = {key: None for value in values for key in value}
        return {key: _merged(key, [value.get(key) for value in values]) for key in names}
    if isinstance(first, list):
        return [sum(row) for row in zip(*values, strict=True)] if name == "counts" else first
    if isinstance(first, bool):
        return all(values)
    if isinstance(first, str):
        return ", ".join(sorted(set(values)))
    if name in _SMALLEST:
        return min(values)
    of_seconds = name.endswith("_s") and name not in _SUMS_OF_SECONDS
    return max(values) if of_seconds or name in _LARGEST else sum(values)
