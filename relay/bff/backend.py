"""Calls to the backend's authentication routes.

The URL is made of fixed parts and never of anything that a browser sent.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from relay.core.errors import Reason, Refusal, UnavailableError
from relay.net.http_client import UrlClient

CONNECTIONS = 100
"""Most connections to the backend, for all log-ins together."""

_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")
"""RFC 6265 §4.1.1. Any other character needs quotes, or ends the value and begins an attribute."""


class _LoginAnswer(msgspec.Struct):
    accessToken: str  # noqa: N815  # the backend's name on the wire
    refreshToken: str  # noqa: N815  # the backend's name on the wire
    user: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """The result of a successful log-in. The tokens go into cookies and nowhere else."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    user: dict[str, Any]


class Backend:
    """The backend of the BFF. End it with `aclose`."""

    def __init__(self, *, origin: str, login_path: str, timeout_s: float) -> None:
        self._login = UrlClient(
            origin + login_path, name="The backend's log-in", timeout_s=timeout_s, connections=CONNECTIONS
        )

    async def login(self, credentials: dict[str, str]) -> LoggedIn | Refusal:
        """Ask the backend to check `credentials`.

        Raises:
            UnavailableError: if it can't be reached, or its answer makes no sense.
        """
        answer = await self._login.post(credentials)
        if answer.status in (400, 401, 403, 422):
            return Refusal(reason=Reason.CREDENTIALS_INVALID)
        if answer.status == 429:
            return Refusal(reason=Reason.RATE_LIMITED, detail="The backend limits log-ins.")
        if answer.status != 200:
            raise _unavailable(f"The backend's log-in answered {answer.status}.")
        try:
            said = msgspec.json.decode(answer.body, type=_LoginAnswer)
        except (msgspec.DecodeError, RecursionError):
            raise _unavailable(
                "The backend's log-in answer is not {accessToken, refreshToken, user}."
            ) from None
        if not all(_COOKIE_VALUE.fullmatch(token) for token in (said.accessToken, said.refreshToken)):
            raise _unavailable("The backend's tokens hold characters that no cookie may have.")
        return LoggedIn(access_token=said.accessToken, refresh_token=said.refreshToken, user=said.user)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._login.aclose()


def _unavailable(sentence: str) -> UnavailableError:
    return UnavailableError(Reason.BACKEND_UNAVAILABLE, sentence)
