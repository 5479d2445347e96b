"""The security headers of every HTTP answer, in one place, so that no route can forget them.

`relay.web.uvicorn_runner` adds them where answers leave, unless an answer sets the header itself: a page has
its own policy, public keys their own time in caches. The WebSocket side puts the same ones on its refusals.

- nosniff: nothing that is called JSON is ever run as a script.
- The content policy keeps an answer that is opened as a page from running, loading or being framed.
- no-store: answers are about one user.
- Cross-Origin-Resource-Policy same-origin: other sites' pages can't load anything, not even as an image. The
  application's own page, which imports the browser client from `public.url`, is the same origin.
- Strict-Transport-Security only by who speaks TLS itself. Behind a proxy that does, it is the proxy's to say; for
  `localhost` it would break every other server on a developer's machine.
"""

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STRICT_TRANSPORT: Final[Mapping[str, str]] = {"Strict-Transport-Security": "max-age=31536000"}
"""For a year. Without includeSubDomains: that is a decision about hosts which the relay doesn't serve."""


class SecurityHeaders:
    """ASGI middleware: put the headers on every answer of `app` that does not have them. `strict` adds HSTS."""

    def __init__(self, app: ASGIApp, *, strict: bool) -> None:
        self._app = app
        wanted = {**SECURITY_HEADERS, **(STRICT_TRANSPORT if strict else {})}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in wanted.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                own = message.get("headers", ())
                said = {name for name, _ in own}  # in lower case, as ASGI has it
                message["headers"] = [*own, *(header for header in self._headers if header[0] not in said)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
