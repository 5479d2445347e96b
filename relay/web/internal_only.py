"""The check in front of the internal listener: calls from pages of other sites are refused, with any key.

A page can make its visitor's browser call 127.0.0.1, by DNS rebinding or by plain cross-site requests. So each call
must name a known host, and its Origin, if any, must be that host: the only page of this listener is the ops page. Keys
are checked after this.
"""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.web.answers import error_answer


class InternalOnly:
    """ASGI middleware: refuse calls to an unknown host name, and calls that a browser makes for another page."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the call, or call the application."""
        if scope["type"] in ("http", "websocket"):
            request = HTTPConnection(scope)
            hosts = request.headers.getlist("host")
            if len(hosts) != 1 or _host_name(hosts[0]) not in self._hosts:
                answer = error_answer(
                    421, "unknown_host", "Call this listener by a name in listen.internal_hosts."
                )
                return await answer(scope, receive, send)
            # a cross-site GET without CORS, such as that of an image, has no Origin
            site = request.headers.get("sec-fetch-site", "none")
            if not _is_own(request.headers.getlist("origin"), hosts[0]) or site not in (
                "none",
                "same-origin",
            ):
                answer = error_answer(
                    403,
                    "forbidden",
                    "This listener refuses pages of other sites. Type the address of the ops page into the browser.",
                )
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)


def _is_own(origins: list[str], host: str) -> bool:
    """Tell whether a call has no Origin, or the origin of the page that this host serves.

    Both schemes are right: a proxy in front may speak TLS, and no host and port serve a page by both.
    """
    return not origins or (
        len(origins) == 1 and origins[0].lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
    )


def _host_name(host: str) -> str:
    """Return a Host header without its port, in lower case (RFC 9110 §4.2.3). An IPv6 address keeps its brackets."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower()
