"""GET /v1/publishers: each publisher's channels and quota, and its counts since the start.

There are no rates: two requests give the exact rate of each count.
"""

import time

from starlette.requests import Request

from relay.ingest.service import Ingest
from relay.ops.operators import Handler, HandlerResult
from relay.web.answers import json_answer


def publishers_handler(ingest: Ingest) -> Handler:
    """Return the route's handler."""

    async def serve(_request: Request, _operator: str) -> HandlerResult:
        rows = [
            {
                "publisher": name,
                "channels": terms.channels,
                "exclusive": terms.exclusive,
                "rate": terms.quota.rate,
                "byte_rate": terms.quota.byte_rate,
                "connections": counts.connections,
                "published": counts.published,
                "bytes": counts.bytes,
                "alive": counts.alive,
                "refused": counts.refused,
                "stale": counts.stale,
                "duplicate": counts.duplicate,
                "last_at": counts.last_at or None,
            }
            for name, terms in ingest.publishers.items()
            for counts in [ingest.counts[name]]
        ]
        return HandlerResult(response=json_answer(200, {"at": time.time(), "publishers": rows}))

    return serve
