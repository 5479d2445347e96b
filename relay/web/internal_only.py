"""The check in front of the internal listener: calls from pages of other sites are refused, with any key.

A page can make its visitor's browser call 127.0.0.1, by DNS rebinding or by plain cross-site requests. So each call
must name a known host or an IP address, and its Origin, if any, must be that host: the only page of this listener is
the ops page. Keys are checked after this.
"""

import ipaddress

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.web.answers import error_answer


class InternalOnly:
    """ASGI middleware: refuse calls to an unknown host name, and calls that a browser makes for another page.

    `hosts` are the known names. `any_host` are paths that may be called by any name, because they tell nothing.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str], any_host: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._any_host = any_host
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the call, or call the application."""
        if scope["type"] in ("http", "websocket"):
            request = HTTPConnection(scope)
            hosts = request.headers.getlist("host")
            if len(hosts) != 1 or not (scope["path"] in self._any_host or self._is_known(hosts[0])):
                answer = error_answer(
                    421,
                    "unknown_host",
                    "Call this listener by its IP address, or by a name in listen.internal_hosts.",
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

    def _is_known(self, host: str) -> bool:
        name = _host_name(host)
        return name in self._hosts or _is_address(name)


def _is_own(origins: list[str], host: str) -> bool:
    """Tell whether a call has no Origin, or the origin of the page that this host serves.

    Both schemes are right: a proxy in front may speak TLS, and no host and port serve a page by both.
    """
    return not origins or (
        len(origins) == 1 and origins[0].lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
    )


def _is_address(name: str) -> bool:
    """Tell whether a host is an IP address: no page can rebind one, and probes call a pod by its address.

    0.0.0.0 and [::] are refused. They reach loopback too, and only an attacker's page calls them.
    """
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return not address.is_unspecified and (address.version == 6) == name.startswith("[")


def _host_name(host: str) -> str:
    """Return a Host header without its port, in lower case (RFC 9110 §4.2.3). An IPv6 address keeps its brackets."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower()
