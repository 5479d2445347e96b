"""When a request renews its session: which cookies it must have, and from where it must come.

A page, a navigation or a prefetch never renews anything: its answer may be thrown away, and the new cookies with it.
So a request must be provably one of the application's own scripts.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from relay.bff.backend import issued_at
from relay.bff.cookie_life import until
from relay.bff.refresh import Refreshed, Refresher
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.sessions.cookies import SessionCookies, find_session
from relay.web.cookies import CookieOptions
from relay.web.csrf import CsrfCheck
from relay.web.renewed import Renewed

FRESH_S = 30.0
"""Age up to which an access token that the backend has refused is not replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalOptions:
    """The cookies and the check of a request's origin."""

    csrf: CsrfCheck
    access: CookieOptions
    refresh: CookieOptions


class RefreshRenewal:
    """A `relay.web.renewed.SessionRenewal` with refresh cookies."""

    def __init__(
        self, options: RenewalOptions, *, refresher: Refresher, client_of: Callable[[Request], Client]
    ) -> None:
        self._options = options
        self._refresher = refresher
        self._client_of = client_of

    def cookie(self, request: Request) -> str | Refusal:
        """Return the request's one refresh cookie."""
        names = SessionCookies(names=(self._options.refresh.name,))
        return find_session(request.headers.getlist("cookie"), names)

    async def renew(self, request: Request, *, after_401: bool = False) -> Renewed | Refusal:
        """See `SessionRenewal.renew`."""
        token = self.cookie(request)
        if isinstance(token, Refusal):
            return token
        if not self._is_from_script(request):
            return Refusal(reason=Reason.SESSION_RENEWABLE)
        young_s = FRESH_S if after_401 else 0
        refreshed = await self._refresher.refresh(token, self._client_of(request), young_s=young_s)
        if isinstance(refreshed, Refusal):
            return refreshed
        return Renewed(
            session=refreshed.session,
            access_token=refreshed.tokens.access_token,
            cookies=self._cookies(refreshed),
        )

    async def show(self, request: Request) -> bool:
        """See `SessionRenewal.show`. If the state store does not answer, the next refresh notes it."""
        token = self.cookie(request)
        if isinstance(token, Refusal):
            return False
        with contextlib.suppress(UnavailableError):
            await self._refresher.show(token)
        return True

    def _is_from_script(self, request: Request) -> bool:
        headers = request.headers
        if headers.get("sec-fetch-mode") == "navigate" or "sec-purpose" in headers or "purpose" in headers:
            return False
        return self._options.csrf(request) is None

    def _cookies(self, refreshed: Refreshed) -> tuple[tuple[CookieOptions, str], ...]:
        now, tokens = time.time(), refreshed.tokens
        return (
            (until(self._options.access, refreshed.session.token_expires_at, now), tokens.access_token),
            (until(self._options.refresh, tokens.refresh_ends, now), tokens.refresh_token or ""),
        )


def is_fresh(token: str | Refusal) -> bool:
    """Tell whether an access token is so new that another one would be refused for the same reason.

    Some backends answer 401 to a wrong current password, too. A token that does not tell its age, or by another clock,
    is found by the age of its refresh token (`RefreshRenewal.renew`).
    """
    issued = None if isinstance(token, Refusal) else issued_at(token)
    return issued is not None and abs(time.time() - issued) < FRESH_S
