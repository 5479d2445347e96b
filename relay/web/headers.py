"""The security headers of every HTTP answer, in one place, so that no route can forget them.

`relay.web.uvicorn_runner` adds them to each answer that does not set them itself: a page has a content policy of its
own, and public keys may be cached. Refusals of the WebSocket listener have the same headers.
"""

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    # answers are about one user; a cache that knows only one of the two must not keep them either
    "Cache-Control": "private, no-store",
    # an answer that is opened as a page can't run or load anything, and can't be framed
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # Pages of other sites can't load an answer, not even as an image. The application's own page, which imports the
    # browser client from public.url, has the same origin.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # JSON is never run as a script
    "X-Content-Type-Options": "nosniff",
}
STRICT_TRANSPORT: Final[Mapping[str, str]] = {"Strict-Transport-Security": "max-age=31536000"}
"""HSTS for a year, for listeners that speak TLS themselves. A proxy in front that does TLS decides on its own. Without
includeSubDomains, because the relay can't decide for hosts that it does not serve."""


class SecurityHeaders:
    """ASGI middleware: add the headers to each answer of `app` that does not have them. `strict` adds HSTS."""

    def __init__(self, app: ASGIApp, *, strict: bool) -> None:
        self._app = app
        headers = {**SECURITY_HEADERS, **(STRICT_TRANSPORT if strict else {})}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                own = message.get("headers", ())
                present = {name for name, _ in own}  # in lower case, as in ASGI
                message["headers"] = [*own, *(header for header in self._headers if header[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
