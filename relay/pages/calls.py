"""Calls of the page server to the backend: shared connections, and for each request a client with its own token."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import httpx

from relay.core.errors import ConfigurationError
from relay.net.http_client import UrlClient, UrlResponse, async_transport, client_over

CONNECTIONS = 100
"""Most connections to the backend, as the relay's own log-in has."""


class Calls:
    """The connections to the backend. No token is in them: each request brings its own. End them with `aclose`."""

    def __init__(self, origin: str, *, me_path: str, timeout_s: float) -> None:
        self._origin = origin
        self._me_path = me_path
        self._timeout_s = timeout_s
        # connections belong to an event loop: test clients and Django's server make several
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections] = WeakKeyDictionary()

    async def me(self, token: str, headers: Mapping[str, str]) -> UrlResponse:
        """Ask the backend who the user of an access token is.

        Raises:
            UnavailableError: if no whole answer comes in time, or it is too long.
        """
        return await self._connections().me.get(
            bearer=token, headers={"Cache-Control": "no-store", **headers}
        )

    def client(self, headers: Mapping[str, str], *, on_401: Callable[[], None]) -> httpx.AsyncClient:
        """Return a client that sends these headers to the backend's origin, and to no other one."""

        async def check(response: httpx.Response) -> None:
            if response.status_code == 401:
                on_401()

        return client_over(
            _OneOrigin(self._connections().transport, self._origin),
            base_url=self._origin,
            timeout_s=self._timeout_s,
            headers={"Accept": "application/json", "Cache-Control": "no-store", **headers},
            on_response=check,
        )

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        found = self._by_loop.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found.me.aclose()
            await found.transport.aclose()

    def _connections(self) -> "_Connections":
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            self._by_loop[loop] = _Connections(
                me=UrlClient(
                    self._origin + self._me_path,
                    name=f"The backend's {self._me_path}",
                    timeout_s=self._timeout_s,
                    connections=CONNECTIONS,
                ),
                transport=async_transport(self._origin, connections=CONNECTIONS),
            )
        return self._by_loop[loop]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connections:
    me: UrlClient
    transport: httpx.AsyncHTTPTransport


class _OneOrigin(httpx.AsyncBaseTransport):
    """The shared connections for one request's client. Closing the client leaves them open."""

    def __init__(self, transport: httpx.AsyncBaseTransport, origin: str) -> None:
        self._transport = transport
        self._origin = _origin_of(httpx.URL(origin))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if _origin_of(request.url) != self._origin:
            raise ConfigurationError(
                f"backend(request) calls {self._origin[1]} only, because its calls have the user's access token; "
                f"call {request.url.host} with a client of your own."
            )
        return await self._transport.handle_async_request(request)


def _origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
