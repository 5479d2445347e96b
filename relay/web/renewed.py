"""Sessions that get new tokens in the middle of a request, and the cookies that its answer must set then."""

from dataclasses import dataclass, field
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import Reason, Refusal
from relay.sessions.base import Session
from relay.web.cookies import CookieOptions, set_cookie

RENEWABLE: Final = frozenset({Reason.SESSION_MISSING, Reason.SESSION_EXPIRED})
"""Reasons of a refused access token that new tokens make good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """The session, its new access token, and the cookies with their values. Each answer to the request sets them."""

    session: Session
    access_token: str = field(repr=False)
    cookies: tuple[tuple[CookieOptions, str], ...] = field(repr=False)

    def set_cookies(self, request: Request, response: Response) -> None:
        """Set the cookies. Without them the browser would come back with an old refresh cookie."""
        for options, value in self.cookies:
            set_cookie(request, response, options, value)


class SessionRenewal(Protocol):
    """Renews the session of a request with its refresh cookie. `relay.bff.renewal` is the adapter."""

    async def renew(self, request: Request, *, after_401: bool = False) -> Renewed | Refusal:
        """Return the session with new tokens, or why there are none; `SESSION_MISSING`: the cookie is missing.

        `after_401`: the backend has refused the access token. New ones are no use then if it was made just before.

        The caller has counted the request, and has checked the origin of an unsafe one.

        Raises:
            UnavailableError: if the backend or the state store did not answer. The cookies are as good as before.
        """
        ...

    async def show(self, request: Request) -> bool:
        """Note that the browser has the request's refresh cookie, so that the one before it is soon spent.

        Return whether it has one.
        """
        ...
