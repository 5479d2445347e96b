"""GET /v1/audit: the newest records of the audit log, or those about one user, session, token or connection; and
GET /v1/audit/why: the story of one of these, as `relay audit why` tells it.

Reading it is an `audit.read` in the log itself, with what was looked for: once for each search, and for a page that
follows the log, once in ten minutes.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from relay.audit.query.timeline import RecentTimeline
from relay.audit.recent import RecentQuery
from relay.core.errors import MalformedError
from relay.core.events import Action
from relay.ops.operators import Done, Handler
from relay.web.answers import json_answer

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
"""A record has about 800 bytes: 400 KB in one answer."""
MAX_ABOUT_CHARS = 256
"""As long as a user's name may be in the log."""

_MEMBERS = frozenset({"limit", "action", "outcome", "about", "after", "before"})
_NUMBER = re.compile("[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Records, newest first, and each in plain words. `whole` is False if there may be older ones that match."""

    records: Sequence[Mapping[str, Any]]
    told: Sequence[str]
    whole: bool


def feed_handler(find: Callable[[RecentQuery], Awaitable[AuditPage]]) -> Handler:
    """Return the handler of the newest records."""

    async def serve(request: Request, _operator: str) -> Done:
        wanted = _asked(request.query_params)
        found = await find(wanted)
        sought = {
            name: value
            for name, value in (
                ("action", wanted.action),
                ("outcome", wanted.outcome),
                ("about", wanted.about),
            )
            if value
        }
        return Done(
            response=json_answer(200, found),
            noted={"sought": sought},
            what=repr(sought),
            action=Action.AUDIT_READ,
        )

    return serve


def story_handler(find: Callable[[str, int], Awaitable[RecentTimeline]]) -> Handler:
    """Return the handler of stories. `find` takes whose it is, and how many steps at most."""

    async def serve(request: Request, _operator: str) -> Done:
        about = request.query_params.get("about", "")
        if not about or len(request.query_params) > 1 or len(about) > MAX_ABOUT_CHARS:
            raise MalformedError(
                f"Name a token, connection, session or user: ?about=… with at most {MAX_ABOUT_CHARS} characters."
            )
        story = await find(about, MAX_LIMIT)
        sought = {"story": about}
        return Done(
            response=json_answer(200, story),
            noted={"sought": sought},
            what=repr(sought),
            action=Action.AUDIT_READ,
        )

    return serve


def _asked(query: Mapping[str, str]) -> RecentQuery:
    if unknown := sorted(query.keys() - _MEMBERS):
        raise MalformedError(
            f"Unknown parameter: {unknown[0][:40]!r}. There are limit, action, outcome, about, after and before."
        )
    limit = _number(query, "limit", DEFAULT_LIMIT)
    if not 0 < limit <= MAX_LIMIT:
        raise MalformedError(f"limit is a number from 1 to {MAX_LIMIT}.")
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
        after=_number(query, "after", 0),
        before=_number(query, "before", 0) or None,
    )


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        raise MalformedError(f"{name} is a number.")
    return int(text)
