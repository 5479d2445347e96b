"""CORS for the application's pages of other origins: `public.allowed_origins`, exactly, with credentials.

It exists on the routes that log in and out, refresh and give tokens. The user's data is at other routes (the API proxy,
`/api/auth/me`), which no page of another origin may read: it has a server of its own for that.
"""

from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.web.csrf import HEADER

PATHS: Final = frozenset(
    {
        "/auth/ws-token",
        "/api/auth/ws-token",
        "/api/auth/login",
        "/api/auth/logout",
        "/api/auth/refresh",
    }
)
ALLOWED_HEADERS: Final = ("content-type", HEADER.lower())
PREFLIGHT_S: Final = 600
"""Seconds for which a browser remembers a preflight: an origin that is taken out of the settings is out after that. Its
requests are refused at once, by the check of Origin."""


_READABLE: Final = (
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", b"Retry-After"),
)


class Cors:
    """ASGI middleware: answer preflights, and let `allows`' origins read the answers of `PATHS` (Fetch §3.2).

    What it does not allow goes on as if it were not there: the CSRF check decides about requests, not this.
    """

    def __init__(self, app: ASGIApp, *, allows: Callable[[str], bool]) -> None:
        self._app = app
        self._allows = allows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or answer a preflight."""
        if scope["type"] != "http" or scope["path"] not in PATHS:
            return await self._app(scope, receive, send)
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        origin = origins[0] if len(origins) == 1 and self._allows(origins[0]) else None
        if origin is not None and scope["method"] == "OPTIONS" and _may_follow(Headers(scope=scope)):
            answer = Response(status_code=204)
            answer.headers["Access-Control-Allow-Methods"] = "POST"
            answer.headers["Access-Control-Allow-Headers"] = ", ".join(ALLOWED_HEADERS)
            answer.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)
            app: ASGIApp = answer
        else:
            app = self._app

        readable = (
            () if origin is None else ((b"access-control-allow-origin", origin.encode("latin-1")), *_READABLE)
        )

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Vary also for other origins: a cache must tell them apart. A second line adds to the first one.
                message["headers"] = [*message.get("headers", ()), (b"vary", b"Origin"), *readable]
            await send(message)

        await app(scope, receive, send_readable)
        return None


def _may_follow(headers: Headers) -> bool:
    """Tell whether this is a preflight of a request that these routes take."""
    asked = headers.get("access-control-request-headers", "").lower().split(",")
    return headers.get("access-control-request-method") == "POST" and all(
        name.strip() in ("", *ALLOWED_HEADERS) for name in asked
    )
