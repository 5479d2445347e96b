"""HTTP calls that the relay itself makes to one fixed address: bounded in time and size, and going nowhere else.

The environment's proxies are ignored and redirects are not followed, so that a credential goes to the configured
host only. No cookies are kept: what one user's answer sets would go out with the next one's call. The time is for
a whole call; the library's own is for each read, and a server that sends a byte now and then would hold a caller
for hours. Bodies are not decompressed: some kilobytes could become gigabytes.
"""

import asyncio
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from relay.core.errors import Reason, UnavailableError
from relay.net.trust import certificates_for

MAX_ANSWER_BYTES: Final = 65_536
"""Longest answer that is read: a set of 64 keys has 30 KB, a user with all roles a few."""

_CUT_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. The body stays out of the repr, because it says who somebody is."""

    status: int
    body: bytes = field(repr=False)


class Address:
    """One URL to ask. Opens nothing before the first call; end it with `aclose`, after which it may be asked again."""

    def __init__(self, url: str, *, name: str, timeout_s: float, connections: int = 4) -> None:
        """`name` begins the sentences of errors ("session.upstream.me"), `timeout_s` is for a whole call."""
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._connections = connections
        self._client: httpx.AsyncClient | None = None

    async def get(self, *, bearer: str | None = None) -> Answer:
        """GET the URL and return what comes, whatever its status.

        Raises:
            UnavailableError: if no whole answer comes in time, or it is too long. Never quotes the credential.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._get(bearer)
        except (httpx.HTTPError, TimeoutError) as error:
            # from None: a library's own text may quote a header
            raise self._unavailable(f"did not answer: {type(error).__name__}") from None

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _get(self, bearer: str | None) -> Answer:
        try:
            return await self._once(bearer)
        except _CUT_OFF:
            # a server closes an idle connection just as it is used again; asking twice does no harm
            return await self._once(bearer)

    async def _once(self, bearer: str | None) -> Answer:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
        async with self._connected().stream("GET", self._url, headers=headers) as response:
            body = b""
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise self._unavailable(f"answered with more than {MAX_ANSWER_BYTES} bytes")
            return Answer(status=response.status_code, body=body)

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=certificates_for(self._url),
                timeout=self._timeout_s,
                limits=httpx.Limits(
                    max_connections=self._connections, max_keepalive_connections=self._connections
                ),
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        return self._client

    def _unavailable(self, what: str) -> UnavailableError:
        return UnavailableError(Reason.BACKEND_UNAVAILABLE, f"{self._name} {what}.")
