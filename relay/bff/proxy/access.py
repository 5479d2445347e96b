"""The access token of a request: the port, and the adapter that takes it from the session's cookie."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request

from relay.core.errors import Refusal
from relay.sessions.base import Session
from relay.sessions.cookies import SessionCookies
from relay.web.cookies import read_cookie


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a call goes to the backend with. `secrets` are all tokens of the session: no answer may hold one of them.

    `cookies` are headers that set the cookies of new tokens. The answer gets them, whatever it is.
    """

    token: str = field(repr=False)
    session: Session
    secrets: tuple[str, ...] = field(repr=False)
    cookies: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)


class AccessTokens(Protocol):
    """Finds the access token of a request. The proxy asks nobody else for one."""

    async def find(self, request: Request) -> Access | Refusal:
        """Return the access token of a request, or why there is none. It may be refreshed for this.

        Raises:
            UnavailableError: if that can't be found out now.
        """
        ...

    async def renew(self, request: Request, refused: Access) -> Access | None:
        """Return another access token after the backend has answered 401 to `refused`, or None if there is none.

        The call is repeated once with it. It is asked only if the request has no body, which could not be sent again.

        Raises:
            UnavailableError: as `find`.
        """
        ...


class CookieAccess:
    """An `AccessTokens` that takes the token from the session's cookie, and never has another one."""

    def __init__(
        self,
        *,
        session: SessionCookies,
        refresh: SessionCookies,
        authenticate: Callable[[str, Request], Awaitable[Session | Refusal]],
    ) -> None:
        self._session = session
        self._refresh = refresh
        self._authenticate = authenticate

    async def find(self, request: Request) -> Access | Refusal:
        """See `AccessTokens.find`."""
        token = read_cookie(request, self._session)
        if isinstance(token, Refusal):
            return token
        session = await self._authenticate(token, request)
        if isinstance(session, Refusal):
            return session
        refresh = read_cookie(request, self._refresh)
        secrets = (token,) if isinstance(refresh, Refusal) else (token, refresh)
        return Access(token=token, session=session, secrets=secrets)

    async def renew(self, request: Request, refused: Access) -> Access | None:  # noqa: ARG002  # the port's signature
        """See `AccessTokens.renew`."""
        return None
