"""Calls to the backend's authentication routes.

The URL is made of fixed parts and never of anything that a browser sent; the environment's proxies are ignored
and redirects are not followed, so that credentials go to the configured host and nowhere else.
"""

from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from relay.core.errors import Reason, Refusal, UnavailableError

MAX_ANSWER_BYTES = 65_536
"""Longest answer that is read: two JWTs and a user have some kilobytes."""


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
        self._client = httpx.AsyncClient(timeout=timeout_s, trust_env=False, follow_redirects=False)

    async def login(self, credentials: dict[str, str]) -> LoggedIn | Refusal:
        """Ask the backend to check `credentials`.

        Raises:
            UnavailableError: if it can't be reached, or its answer makes no sense.
        """
        try:
            async with self._client.stream("POST", self._login_url, json=credentials) as response:
                body = await _read(response)
        except httpx.HTTPError as error:
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
        return LoggedIn(access_token=answer.accessToken, refresh_token=answer.refreshToken, user=answer.user)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _read(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"The backend's answer has more than {MAX_ANSWER_BYTES} bytes."
            )
    return body
