"""Calls to the backend's authentication routes.

The URL is made of fixed parts and never of anything that a browser sent; the environment's proxies are ignored
and redirects are not followed, so that credentials go to the configured host and nowhere else.

One client serves all users, so it keeps no cookies: what the backend sets for one log-in would go out with the
next one's. Its timeouts are for a whole call; the library's own are for each read, and a backend that sends a
byte now and then would hold a log-in for hours.
"""

import asyncio
import re
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import msgspec

from relay.core.errors import Reason, Refusal, UnavailableError

MAX_ANSWER_BYTES = 65_536
"""Longest answer that is read: two JWTs and a user have some kilobytes."""

_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")
"""RFC 6265 §4.1.1: anything else would have to be quoted, or ends the value and begins an attribute."""


class _LoginAnswer(msgspec.Struct):
    accessToken: str  # noqa: N815  # the backend's name on the wire
    refreshToken: str  # noqa: N815  # the backend's name on the wire
    user: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """What a successful log-in gives. The tokens go into cookies and nowhere else."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    user: dict[str, Any]


class Backend:
    """The backend behind the BFF. End it with `aclose`."""

    def __init__(self, *, origin: str, login_path: str, timeout_s: float) -> None:
        self._login_url = origin + login_path
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            timeout=timeout_s,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def login(self, credentials: dict[str, str]) -> LoggedIn | Refusal:
        """Ask the backend to check `credentials`.

        Raises:
            UnavailableError: if it can't be reached, or its answer makes no sense.
        """
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._login_url, json=credentials) as response,
            ):
                body = await _read(response)
        except (httpx.HTTPError, TimeoutError) as error:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"The backend's log-in did not answer: {type(error).__name__}."
            ) from None
        if response.status_code in (400, 401, 403, 422):
            return Refusal(reason=Reason.CREDENTIALS_INVALID)
        if response.status_code == 429:
            return Refusal(reason=Reason.RATE_LIMITED, detail="The backend limits log-ins.")
        if response.status_code != 200:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"The backend's log-in answered {response.status_code}."
            )
        try:
            answer = msgspec.json.decode(body, type=_LoginAnswer)
        except (msgspec.DecodeError, RecursionError):
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE,
                "The backend's log-in answer is not {accessToken, refreshToken, user}.",
            ) from None
        if not all(_COOKIE_VALUE.fullmatch(token) for token in (answer.accessToken, answer.refreshToken)):
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, "The backend's tokens hold characters that no cookie may have."
            )
        return LoggedIn(access_token=answer.accessToken, refresh_token=answer.refreshToken, user=answer.user)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _read(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_raw():  # not decompressed: some kilobytes could become gigabytes
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"The backend's answer has more than {MAX_ANSWER_BYTES} bytes."
            )
    return body
