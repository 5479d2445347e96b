"""What operators ask the internal listener: is it alive, is it ready; and who may call that listener at all.

The internal listener is not for browsers. A page can make its visitor's browser call 127.0.0.1 (DNS rebinding,
or plain cross-site requests), so every call must name a known host and must not carry an Origin.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.web.answers import error_answer, json_answer


def ops_routes(ready: Callable[[], str | None]) -> list[Route]:
    """Return /live and /ready. `ready` gives None, or why new work should go elsewhere."""

    async def live(_request: Request) -> Response:
        return json_answer(200, {"status": "ok"})

    async def is_ready(_request: Request) -> Response:
        why = ready()
        return (
            json_answer(200, {"status": "ok"})
            if why is None
            else error_answer(503, "not_ready", why, retryable=True)
        )

    return [Route("/live", live), Route("/ready", is_ready)]


class InternalOnly:
    """ASGI middleware: refuse calls by an unknown host name, and calls that a browser made for another page."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "http":
            request = Request(scope)
            host = request.headers.get("host", "")
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            if name not in self._hosts:
                answer = error_answer(
                    421, "unknown_host", "Call this listener by a name of listen.internal_hosts."
                )
                return await answer(scope, receive, send)
            if "origin" in request.headers:
                answer = error_answer(403, "forbidden", "This listener is not for browsers.")
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)
