"""GET /v1/channels: the channels that have a value, how far each is, and how old its last value is.

In pages, by name; `next` is the last name of a full page. There is no rate: `seq` counts, so whoever asks twice
has it exactly, and nothing is measured for those who don't.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.core.patterns import check_channel, check_pattern
from relay.ops.operators import Done, Handler
from relay.web.answers import json_answer

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
"""As of connections: a page is made on the event loop."""

Listing = Callable[[str, int, str], tuple[int, Sequence[Mapping[str, Any]]]]
"""Returns how many channels match a pattern ("" for all), and up to so many of them after a name, by name."""


def channels_handler(listing: Listing) -> Handler:
    """Return the route's handler."""

    async def serve(request: Request, _operator: str) -> Done:
        after, limit, pattern = _asked(request.query_params)
        total, rows = listing(after, limit, pattern)
        following = rows[-1]["channel"] if len(rows) == limit else None
        answer = {"total": total, "channels": rows, "next": following}
        return Done(response=json_answer(200, answer), noted={"rows": len(rows)})

    return serve


def _asked(query: Mapping[str, str]) -> tuple[str, int, str]:
    if unknown := sorted(query.keys() - {"limit", "after", "match"}):
        raise MalformedError(f"Unknown parameter: {unknown[0][:40]!r}. There are limit, after and match.")
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch("[0-9]{1,4}", text, re.ASCII) or not 0 < int(text) <= MAX_LIMIT:
        raise MalformedError(f"limit is a number from 1 to {MAX_LIMIT}.")
    after, pattern = query.get("after", ""), query.get("match", "")
    return check_channel(after) if after else "", int(text), check_pattern(pattern) if pattern else ""
