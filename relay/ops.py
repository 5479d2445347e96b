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
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "http":
            request = Request(scope)
            hosts = request.headers.getlist("host")
            if len(hosts) != 1 or _host_name(hosts[0]) not in self._hosts:
                answer = error_answer(
                    421, "unknown_host", "Call this listener by a name of listen.internal_hosts."
                )
                return await answer(scope, receive, send)
            # of a cross-site GET without CORS, such as an image's, only the second header tells
            site = request.headers.get("sec-fetch-site", "none")
            if "origin" in request.headers or site not in ("none", "same-origin"):
                answer = error_answer(403, "forbidden", "This listener is not for browsers.")
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)


def _host_name(host: str) -> str:
    """Return a Host header without its port, in lower case (RFC 9110 §4.2.3). An IPv6 address keeps its brackets."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower()
