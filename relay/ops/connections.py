"""GET /v1/connections: who is connected, so that operators see what they revoke.

In pages, oldest first. A page's `next` says where the following one begins, by age and not by number: connections
come and go between two pages, and none is left out for it. It says users and session references, so it needs a key.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.ops.operators import Done, Handler
from relay.web.answers import json_answer

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
"""A page is made on the event loop: 1000 rows of 20,000 connections take 15 ms."""

_PLACE = re.compile(r"([0-9]{1,12}\.[0-9]{1,9})~([0-9a-f-]{36})", re.ASCII)

Place = tuple[float, int]
Listing = Callable[[Place, int], Sequence[Mapping[str, Any]]]
"""Returns up to so many connections that are younger than a place. Each has `opened_at` and `id`, and what is shown."""


def connections_handler(listing: Listing, *, total: Callable[[], int]) -> Handler:
    """Return the route's handler. `total` counts all connections."""

    async def serve(request: Request, _operator: str) -> Done:
        limit, place = _asked(request.query_params)
        rows = listing(place, limit)
        last = rows[-1] if len(rows) == limit else None
        answer = {
            "total": total(),
            "connections": rows,
            "next": None if last is None else f"{last['opened_at']:.9f}~{last['id']}",
        }
        return Done(response=json_answer(200, answer), noted={"rows": len(rows)})

    return serve


def _asked(query: Mapping[str, str]) -> tuple[int, Place]:
    if unknown := sorted(query.keys() - {"limit", "after"}):
        raise MalformedError(f"Unknown parameter: {unknown[0][:40]!r}. There are limit and after.")
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch("[0-9]{1,4}", text, re.ASCII) or not 0 < int(text) <= MAX_LIMIT:
        raise MalformedError(f"limit is a number from 1 to {MAX_LIMIT}.")
    if "after" not in query:
        return int(text), (0.0, 0)
    found = _PLACE.fullmatch(query["after"])
    try:
        return int(text), (float(found[1]), UUID(found[2]).int) if found else _no_place()
    except ValueError:
        return int(text), _no_place()


def _no_place() -> Place:
    raise MalformedError("after is the `next` of the page before.")
