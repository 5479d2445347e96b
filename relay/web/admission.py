"""Lets one request a turn of the event loop into an application that shares its loop with prices."""

from starlette.types import ASGIApp, Receive, Scope, Send

from relay.net.admission import Turnstile


class OneATurn:
    """ASGI middleware: requests begin in their order, each in a turn of its own. See `relay.net.admission`."""

    def __init__(self, app: ASGIApp, *, turnstile: Turnstile) -> None:
        self._app = app
        self._turnstile = turnstile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for a turn, then pass on."""
        if scope["type"] == "http":
            await self._turnstile.enter()
        await self._app(scope, receive, send)
