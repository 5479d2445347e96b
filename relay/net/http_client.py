"""HTTP calls that the relay, its clients and its commands make. Every httpx client is made here.

- The environment's proxies and .netrc are ignored, and redirects are not followed: a credential goes to the
  configured host only.
- No cookies are kept: a cookie that one user's answer sets would go out with the next user's call.
- A server's certificate is checked against the public authorities and the authorities that this machine's owner
  added (`certificates_for`).

`UrlClient` uses httpcore, the library below httpx: only there can be seen whether a byte of an answer came.
"""

import asyncio
import importlib.util
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpcore
import httpx
import msgspec

from relay.core.errors import Reason, UnavailableError
from relay.net.backend_faults import backend_fault

MAX_ANSWER_BYTES: Final = 65_536
"""Longest answer that `UrlClient` reads by default: a user with all roles, or two JWTs, have a few KB."""

KEPT_S: Final = 30.0
"""Seconds for which `UrlClient` keeps an idle connection. In each call the pool asks the kernel about each idle one:
with the 100 that a crowd of log-ins leaves, that took milliseconds."""

if importlib.util.find_spec("sniffio") is None:
    # httpcore 1.0.9 imports it for each of its locks, eight times a call. Python does not remember that a module is
    # missing, and searches the path for 40 µs each time, unless this tells it so.
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # as the import system has it

_CUT_OFF = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
_FAILED = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, TimeoutError)


def async_client(
    url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None, connections: int = 100
) -> httpx.AsyncClient:
    """Return an httpx client for calls to `url` and to paths of the same server. The caller closes it.

    `timeout_s` is for connecting and for each read and write, not for a whole call. `connections` is the most that
    are open at one time; httpx's own default is 100.
    """
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(**_options(url, timeout_s, headers), limits=limits)


def blocking_client(url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """Return the same client as `async_client` for code without an event loop."""
    return httpx.Client(**_options(url, timeout_s, headers))


def async_transport(url: str, *, connections: int) -> httpx.AsyncHTTPTransport:
    """Return connections to the server of `url`, which several clients share. The caller closes them."""
    return httpx.AsyncHTTPTransport(
        verify=certificates_for(url),
        trust_env=False,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def client_over(
    transport: httpx.AsyncBaseTransport,
    *,
    base_url: str,
    timeout_s: float,
    headers: Mapping[str, str],
    on_response: Callable[[httpx.Response], Awaitable[None]],
) -> httpx.AsyncClient:
    """Return a client that uses `transport`, which it closes with itself. `on_response` is called for each answer."""
    return httpx.AsyncClient(
        transport=transport,
        base_url=base_url,
        timeout=timeout_s,
        headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
        trust_env=False,
        follow_redirects=False,
        cookies=_no_cookies(),
        event_hooks={"response": [on_response]},
    )


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _options(url: str, timeout_s: float, headers: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        "verify": certificates_for(url),
        "timeout": timeout_s,
        "headers": headers,
        "trust_env": False,
        "follow_redirects": False,
        "cookies": _no_cookies(),
    }


def certificates_for(url: str) -> ssl.SSLContext | bool:
    """Return the `verify` argument of httpx for calls to `url`: the certificate authorities to trust, or False.

    httpx alone trusts the public authorities only. A relay or a backend on an internal name often has a certificate
    from its company's authority, which the machine's owner adds to the system's certificates, or names in
    SSL_CERT_FILE or SSL_CERT_DIR.
    """
    if not url.startswith("https://"):
        # loading certificates takes 60 ms; http:// never needs them, because redirects are not followed
        return False
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlResponse:
    """An HTTP answer. The body stays out of the repr, because it says who a user is, or holds tokens."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values by name. Names are found in any letter case."""


class UrlClient:
    """One fixed URL that the relay calls. It connects at the first call. End it with `aclose`; calls may follow."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        timeout_s: float,
        connections: int = 4,
        max_bytes: int = MAX_ANSWER_BYTES,
        setting: str = "",
    ) -> None:
        """`name` begins the sentences of errors ("session.upstream.me"); `timeout_s` is for a whole call.

        `setting` is the setting to compare where the server answers with what can't be used.
        """
        self._setting = setting
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._connections = connections
        self._max_bytes = max_bytes
        self._pools: dict[int, httpcore.AsyncConnectionPool] = {}

    async def get(
        self, *, bearer: str | None = None, headers: Mapping[str, str] | None = None
    ) -> UrlResponse:
        """GET the URL and return the answer, whatever its status.

        Raises:
            UnavailableError: if no whole answer comes in time, or it is too long. Never quotes the credential.
        """
        sent = _with_bearer(headers, bearer)
        return await self._call("GET", sent, None, repeatable=True)

    async def post(
        self, body: object = None, *, headers: Mapping[str, str] | None = None, bearer: str | None = None
    ) -> UrlResponse:
        """POST `body` as JSON (None: no body) and return the answer, whatever its status. Raises as `get` does.

        It is sent once, because the server may have acted on a request whose answer was lost. There is one exception,
        in `_call`.
        """
        sent = _with_bearer(headers, bearer)
        content = b""
        if body is not None:
            content = msgspec.json.encode(body)
            sent["Content-Type"] = "application/json"
        return await self._call("POST", sent, content, repeatable=False)

    async def aclose(self) -> None:
        """Close the connections."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()

    async def _call(
        self, method: str, headers: Mapping[str, str], content: bytes | None, *, repeatable: bool
    ) -> UrlResponse:
        """Make the call, and once more on a new connection if a kept one was closed as it was used.

        A server closes an idle connection at a moment of its own, which may be that of the next request. Then no byte
        of an answer comes, and the server has not read the request (RFC 9112 §9.3.1 lets clients repeat it). If a byte
        came, or if the connection was new, the server may have acted, and only a `repeatable` request is repeated.
        """
        fields = {"Accept": "application/json", "Accept-Encoding": "identity"} | dict(headers)
        exchange = _Exchange()
        try:
            # the timeouts of each read are not enough: a server that sends a byte now and then would hold a caller
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._once(method, fields, content, exchange, kept=self._connections)
                except _CUT_OFF:
                    if not repeatable and (exchange.is_new or exchange.answered):
                        raise
                return await self._once(method, fields, content, _Exchange(), kept=0)
        except _FAILED as error:
            # from None: the library's own text may quote a header
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE,
                f"{self._name} did not answer: {type(error).__name__}.",
                setting=self._setting,
            ) from None

    async def _once(
        self,
        method: str,
        headers: Mapping[str, str],
        content: bytes | None,
        exchange: "_Exchange",
        *,
        kept: int,
    ) -> UrlResponse:
        token = _exchange.set(exchange)
        try:
            async with self._pool(kept).stream(
                method,
                self._url,
                headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
                content=content,
                extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)},
            ) as response:
                body = bytearray()
                # not decompressed: some kilobytes could become gigabytes
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > self._max_bytes:
                        fault = backend_fault(
                            self._name,
                            came=f"more than {self._max_bytes} bytes",
                            expected="a shorter answer",
                            setting=self._setting,
                        )
                        fault.answered = response.status
                        raise fault
                return UrlResponse(
                    status=response.status,
                    body=bytes(body),
                    headers=httpx.Headers(response.headers),
                )
        finally:
            _exchange.reset(token)

    def _pool(self, kept: int) -> httpcore.AsyncConnectionPool:
        """Return the pool that keeps so many idle connections. One that keeps none makes a new one for each call."""
        if kept not in self._pools:
            certificates = certificates_for(self._url)
            self._pools[kept] = httpcore.AsyncConnectionPool(
                ssl_context=certificates if isinstance(certificates, ssl.SSLContext) else None,
                max_connections=self._connections,
                max_keepalive_connections=kept,
                keepalive_expiry=KEPT_S,
                network_backend=_WatchedNetwork(),
            )
        return self._pools[kept]


def _with_bearer(headers: Mapping[str, str] | None, bearer: str | None) -> dict[str, str]:
    return dict(headers or {}) | ({} if bearer is None else {"Authorization": f"Bearer {bearer}"})


@dataclass(slots=True)
class _Exchange:
    """What is known of one request's connection: whether it was made for it, and whether a byte of an answer came."""

    is_new: bool = False
    answered: bool = False


_exchange: ContextVar[_Exchange] = ContextVar("exchange")
"""The request of the running task: the pool reads and writes in the task of its caller."""


class _WatchedNetwork(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        _exchange.get().is_new = True
        return _WatchedStream(
            await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


class _WatchedStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        if data:
            _exchange.get().answered = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _WatchedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
