"""The operators' view of the audit log: its newest records, and the timeline of one token, connection, session or user.

    GET /v1/audit       the newest records, or those about one user, session, token or connection
    GET /v1/audit/why   a timeline, with the sentences of `relay audit why`

Reading the log is itself recorded as `audit.read`, with what was searched for: once for each search, and for a page
that repeats its request, once in ten minutes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
from starlette.requests import Request

from relay.audit.files import chains
from relay.audit.query.explain import explain
from relay.audit.query.records import from_parsed
from relay.audit.recent import RecentQuery, find_recent, recent_timeline
from relay.core.errors import MalformedError, Reason, UnavailableError
from relay.core.events import Action
from relay.ops.operators import Handler, HandlerResult
from relay.ops.paging import check_names, read_limit, read_number
from relay.web.answers import json_answer

DEFAULT_RECORDS = 50
MAX_RECORDS = 500
"""Most records of one answer: a record has about 800 bytes, so 400 KB."""
MAX_ABOUT_CHARS = 256
"""Longest name to search for: as long as a user's name may be in the log."""

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Records, the newest first, and of each a sentence and its position, for `after` and `before` of the next search.

    `whole` is False if there may be older matches.
    """

    records: Sequence[Mapping[str, Any]]
    told: Sequence[str]
    positions: Sequence[str]
    whole: bool


def audit_listing_handler(path: Path) -> Handler:
    """Return the handler of the newest records of the log at `path`."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        query = _read_query(request.query_params)
        page = await _in_the_log(path, partial(_page, query=query))
        named = (("action", query.action), ("outcome", query.outcome), ("about", query.about))
        return _audit_read(page, {name: value for name, value in named if value})

    return serve


def audit_timeline_handler(path: Path) -> Handler:
    """Return the handler of timelines in the log at `path`."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        about = request.query_params.get("about", "")
        if not about or len(request.query_params) > 1 or len(about) > MAX_ABOUT_CHARS:
            raise MalformedError(
                f"Name a token, connection, session or user: ?about=… with at most {MAX_ABOUT_CHARS} characters."
            )
        timeline = await _in_the_log(path, partial(recent_timeline, about=about, limit=MAX_RECORDS))
        return _audit_read(timeline, {"story": about})

    return serve


def _audit_read(answer: object, sought: Mapping[str, str]) -> HandlerResult:
    return HandlerResult(
        response=json_answer(200, answer),
        recorded={"sought": sought},
        same_as=repr(sought),
        action=Action.AUDIT_READ,
    )


async def _in_the_log(path: Path, read: Callable[[Sequence[Sequence[Path]]], Found]) -> Found:
    """Read the files of the log's chains in a thread."""
    try:
        return await anyio.to_thread.run_sync(lambda: read(chains(path)))
    except OSError as error:
        raise UnavailableError(
            Reason.AUDIT_UNAVAILABLE, f"The log can't be read: {error.strerror}."
        ) from None


def _page(files: Sequence[Sequence[Path]], *, query: RecentQuery) -> AuditPage:
    found = find_recent(files, query)
    told = [explain(record) if (record := from_parsed(one)) else "" for one in found.records]
    # as texts: they have more digits than JavaScript's numbers are exact for
    positions = [str(position) for position in found.positions]
    return AuditPage(records=found.records, told=told, positions=positions, whole=found.whole)


def _read_query(query: Mapping[str, str]) -> RecentQuery:
    check_names(query, ("limit", "action", "outcome", "about", "after", "before"))
    limit = read_limit(query, default=DEFAULT_RECORDS, most=MAX_RECORDS)
    action, outcome, about = (query.get(name, "") for name in ("action", "outcome", "about"))
    if action and action not in set(Action):
        raise MalformedError(f"There is no action {action[:40]!r}.")
    if outcome not in ("", "success", "failure"):
        raise MalformedError("outcome is success or failure.")
    if len(about) > MAX_ABOUT_CHARS:
        raise MalformedError(f"about has at most {MAX_ABOUT_CHARS} characters.")
    return RecentQuery(
        limit=limit,
        action=action,
        outcome=outcome,
        about=about,
        after=read_number(query, "after") or 0,
        before=read_number(query, "before") or None,
    )
