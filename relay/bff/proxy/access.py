"""The access token of a request: the port, and the adapter that takes it from the session's cookie."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from relay.bff.renewal import is_fresh
from relay.core.errors import Reason, Refusal
from relay.sessions.base import EndedRefusal, Session
from relay.sessions.cookies import SessionCookies
from relay.web.cookies import read_cookie
from relay.web.renewed import RENEWABLE, SessionRenewal


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a call goes to the backend with. `secrets` are all tokens of the session: no answer may hold one of them.

    `cookies` are headers that set the cookies of new tokens. The answer gets them, whatever it is. `renewable` tells
    whether the browser has a refresh cookie.
    """

    token: str = field(repr=False)
    session: Session
    secrets: tuple[str, ...] = field(repr=False)
    cookies: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    renewable: bool = False


class AccessTokens(Protocol):
    """Finds the access token of a request. The proxy asks nobody else for one."""

    async def find(self, request: Request) -> Access | Refusal:
        """Return the access token of a request, or why there is none. It may be refreshed for this.

        Raises:
            UnavailableError: if that can't be found out now.
        """
        ...

    async def renew(self, request: Request, refused: Access) -> Access | EndedRefusal | None:
        """Return another access token after the backend has answered 401 to `refused`, or None if there is none.

        The call is repeated once with it. A refusal says that the whole log-in is over.

        Raises:
            UnavailableError: as `find`.
        """
        ...


class CookieAccess:
    """An `AccessTokens` that takes the token from the session's cookie, or renews the session with its refresh cookie.

    `renewal` is None if the backend has no refresh tokens.
    """

    def __init__(
        self,
        *,
        session: SessionCookies,
        refresh: SessionCookies,
        authenticate: Callable[[str, Request], Awaitable[Session | Refusal]],
        renewal: SessionRenewal | None,
    ) -> None:
        self._session = session
        self._refresh = refresh
        self._authenticate = authenticate
        self._renewal = renewal

    async def find(self, request: Request) -> Access | Refusal:
        """See `AccessTokens.find`."""
        token = read_cookie(request, self._session)
        session = token if isinstance(token, Refusal) else await self._authenticate(token, request)
        if isinstance(session, Refusal):
            return await self._renewed(request) or session if session.reason in RENEWABLE else session
        assert isinstance(token, str)
        renewable = self._renewal is not None and await self._renewal.show(request)
        secrets = (token, *self._refresh_token(request))
        return Access(token=token, session=session, secrets=secrets, renewable=renewable)

    async def renew(self, request: Request, refused: Access) -> Access | EndedRefusal | None:
        """See `AccessTokens.renew`. A token that is new is not replaced: the backend would refuse the next one, too."""
        if refused.cookies or is_fresh(refused.token):
            return None
        access = await self._renewed(request, after_401=True)
        if isinstance(access, Access):
            return None if access.token == refused.token else access
        return access if isinstance(access, EndedRefusal) else None

    async def _renewed(self, request: Request, *, after_401: bool = False) -> Access | Refusal | None:
        """Renew the session. None: there is nothing to renew it with."""
        if self._renewal is None:
            return None
        renewed = await self._renewal.renew(request, after_401=after_401)
        if isinstance(renewed, Refusal):
            return None if renewed.reason is Reason.SESSION_MISSING else renewed
        answer = Response(status_code=204)  # without a header of its own
        renewed.set_cookies(request, answer)
        return Access(
            token=renewed.access_token,
            session=renewed.session,
            secrets=(*(value for _, value in renewed.cookies), *self._refresh_token(request)),
            # the answer says itself that nobody may keep it
            cookies=tuple(header for header in answer.raw_headers if header[0] != b"cache-control"),
            renewable=True,
        )

    def _refresh_token(self, request: Request) -> tuple[str, ...]:
        token = read_cookie(request, self._refresh)
        return () if isinstance(token, Refusal) else (token,)
