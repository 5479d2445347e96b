"""HTTP calls that the relay, its clients and its commands make. Every httpx client is made here.

- The environment's proxies and .netrc are ignored, and redirects are not followed: a credential goes to the
  configured host only.
- No cookies are kept: a cookie that one user's answer sets would go out with the next user's call.
- A server's certificate is checked against the public authorities and the authorities that this machine's owner
  added (`certificates_for`).
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx

from relay.core.errors import Reason, UnavailableError

MAX_ANSWER_BYTES: Final = 65_536
"""Longest answer that `UrlClient` reads: a set of 64 keys has 30 KB; a user with all roles, or two JWTs, a few."""

_CUT_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


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


def _options(url: str, timeout_s: float, headers: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        "verify": certificates_for(url),
        "timeout": timeout_s,
        "headers": headers,
        "trust_env": False,
        "follow_redirects": False,
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
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


class UrlClient:
    """One fixed URL that the relay calls. It connects at the first call. End it with `aclose`; calls may follow."""

    def __init__(self, url: str, *, name: str, timeout_s: float, connections: int = 4) -> None:
        """`name` begins the sentences of errors ("session.upstream.me"); `timeout_s` is for a whole call."""
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._connections = connections
        self._client: httpx.AsyncClient | None = None

    async def get(self, *, bearer: str | None = None) -> UrlResponse:
        """GET the URL and return the answer, whatever its status.

        Raises:
            UnavailableError: if no whole answer comes in time, or it is too long. Never quotes the credential.
        """
        headers = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
        # a server may close an idle connection at the moment of its next use; a second GET does no harm
        return await self._call("GET", attempts=2, headers=headers)

    async def post(self, body: object) -> UrlResponse:
        """POST `body` as JSON and return the answer, whatever its status. Raises as `get` does.

        It is sent once: the server may have acted on a request whose answer was lost.
        """
        return await self._call("POST", attempts=1, json=body)

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _call(self, method: str, *, attempts: int, **content: Any) -> UrlResponse:
        try:
            # httpx's timeout is for each read: a server that sends a byte now and then would hold a caller for hours
            async with asyncio.timeout(self._timeout_s):
                for _ in range(attempts - 1):
                    try:
                        return await self._once(method, **content)
                    except _CUT_OFF:
                        continue
                return await self._once(method, **content)
        except (httpx.HTTPError, TimeoutError) as error:
            # from None: the library's own text may quote a header
            raise self._unavailable(f"did not answer: {type(error).__name__}") from None

    async def _once(self, method: str, **content: Any) -> UrlResponse:
        async with self._connected().stream(method, self._url, **content) as response:
            body = b""
            async for (
                chunk
            ) in response.aiter_raw():  # not decompressed: some kilobytes could become gigabytes
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise self._unavailable(f"answered with more than {MAX_ANSWER_BYTES} bytes")
            return UrlResponse(status=response.status_code, body=body)

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = async_client(
                self._url,
                timeout_s=self._timeout_s,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                connections=self._connections,
            )
        return self._client

    def _unavailable(self, what: str) -> UnavailableError:
        return UnavailableError(Reason.BACKEND_UNAVAILABLE, f"{self._name} {what}.")
