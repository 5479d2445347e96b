"""Endpoints of the HTTP applications: a function from a request to its answer, as an ASGI application.

Starlette searches the list of headers for each name, and makes a list of strings each time. A route that checks Origin,
cookies, credentials and the body's type asks for ten. Here they are sorted by name once.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class IndexedHeaders(Headers):
    """Headers by name. What they return is what Starlette's `Headers` return."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=list(raw))
        self._values: dict[str, list[str]] = {}
        for name, value in raw:  # names are in lower case, as in ASGI
            self._values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def getlist(self, key: str) -> list[str]:
        """Return all values of a header, in the order in which they came."""
        return list(self._values.get(key.lower(), ()))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the first value of a header."""
        values = self._values.get(key.lower())
        return default if values is None else values[0]

    def __getitem__(self, key: str) -> str:
        return self._values[key.lower()][0]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._values


class IndexedRequest(Request):
    """A request whose headers are `IndexedHeaders`."""

    @cached_property  # Starlette's property is a call each time
    def headers(self) -> Headers:
        """The headers of the request."""
        return IndexedHeaders(self.scope["headers"])


class Endpoint:
    """The ASGI application of a route. `answer` gives the answer to a request."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        response = await self._answer(IndexedRequest(scope, receive, send))
        await response(scope, receive, send)


class DirectRoutes:
    """ASGI middleware: give a request for an `Endpoint` with a fixed path to it, without Starlette's router.

    The router tries the patterns of all routes in turn, and wraps each answer twice for exceptions that an `Endpoint`
    does not raise. That was a tenth of a token. All other requests go on: the router also answers 404 and 405.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        for route in routes:
            if isinstance(route, Route) and isinstance(route.endpoint, Endpoint) and "{" not in route.path:
                for method in route.methods or ():
                    self._endpoints.setdefault((method, route.path), route.endpoint)  # the first one decides

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint or the application."""
        if scope["type"] == "http":
            endpoint = self._endpoints.get((scope["method"], scope["path"]))
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await self._app(scope, receive, send)
