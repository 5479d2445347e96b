"""GET /v1/nodes: every node that the engine knows, with its figures; without an engine, this one."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from relay.ops.operators import Handler, HandlerResult
from relay.web.answers import json_answer


def nodes_handler(read: Callable[[], Mapping[str, Any]]) -> Handler:
    """Return the route's handler."""

    async def serve(_request: Request, _operator: str) -> HandlerResult:
        return HandlerResult(response=json_answer(200, read()))

    return serve
