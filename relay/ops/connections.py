"""GET /v1/connections: the open connections with their users and session references, which a revocation can name.

The list comes in pages, oldest first. `next` says where the following page begins, by age and not by number:
connections open and close between two requests, and so none is left out.
"""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.ops.operators import Handler, HandlerResult
from relay.ops.paging import check_names, read_limit
from relay.stream.gate import Admitted
from relay.stream.registry import Connection, ConnectionCursor, Registry
from relay.web.answers import json_answer

_CURSOR = re.compile(r"([0-9]{1,12}\.[0-9]{1,9})~([0-9a-f-]{36})", re.ASCII)


def connections_handler(registry: Registry) -> Handler:
    """Return the route's handler."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        query = request.query_params
        check_names(query, ("limit", "after"))
        limit = read_limit(query)
        cursor = _read_cursor(query["after"]) if "after" in query else (0.0, 0)
        rows = [_row(*found) for found in registry.after(cursor, limit=limit)]
        last = rows[-1] if len(rows) == limit else None
        answer = {
            "total": len(registry.connections),
            "connections": rows,
            "next": None if last is None else f"{last['opened_at']:.9f}~{last['id']}",
        }
        return HandlerResult(response=json_answer(200, answer), recorded={"rows": len(rows)})

    return serve


def _read_cursor(text: str) -> ConnectionCursor:
    malformed = MalformedError("after is the `next` of the page before.")
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise malformed
    try:
        return float(found[1]), UUID(found[2]).int
    except ValueError:  # 36 hex digits and hyphens that are not a UUID
        raise malformed from None


def _row(connection: Connection, admitted: Admitted) -> Mapping[str, Any]:
    return {
        "id": str(connection.id),
        "user": admitted.claims.subject,
        "endpoint": admitted.attempt.endpoint.name,
        "scope": list(admitted.claims.channels),
        "session": admitted.claims.session_ref,
        "token": admitted.claims.jti,
        "key": admitted.kid,
        "origin": admitted.attempt.origin,
        "address": admitted.attempt.client.address,
        "opened_at": connection.opened_at,
        "age_s": round(connection.age_s, 1),
        "messages_out": connection.messages_out,
    }
