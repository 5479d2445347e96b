"""What every request must have on every HTTP listener: one Host header, and a path in its one spelling.

The WebSocket listener has the same rules in `relay.stream.handshake` and `relay.stream.gate`: it compares paths byte by
byte.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from relay.web.answers import error_answer

_SECOND_SPELLING = re.compile(
    rb"%(?:2[DdEeFf]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee]|(?![0-9A-Fa-f]{2}))"
)
"""An escape that needs none: a letter, a digit, one of -._~ (RFC 3986 §2.3) or a slash, or an escape that is none. A
proxy that compares paths, for rules or for limits, would not know such a path for the same one."""


_PROXIED = b"/api/proxy/"
"""Paths of the backend, for which `relay.bff.proxy.paths` has stricter rules."""


class StrictRequests:
    """ASGI middleware: refuse other versions, requests without or with several Hosts, and paths in another spelling."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or call the application."""
        if scope["type"] in ("http", "websocket"):
            if scope["http_version"] not in (
                "1.0",
                "1.1",
            ):  # the parser reads "HTTP/2.0" and no version at all, too
                answer = error_answer(400, "invalid_request", "This is not a request of HTTP/1.1.")
                answer.headers["Connection"] = "close"
                return await answer(scope, receive, send)
            if sum(name == b"host" for name, _ in scope["headers"]) != 1:  # RFC 9112 §3.2
                answer = error_answer(
                    400, "invalid_request", "The request does not have exactly one Host header."
                )
                return await answer(scope, receive, send)
            raw_path = scope["raw_path"]
            if b"%" in raw_path and not raw_path.startswith(_PROXIED) and _SECOND_SPELLING.search(raw_path):
                return await error_answer(404, "not_found", "There is nothing here.")(scope, receive, send)
        return await self._app(scope, receive, send)
