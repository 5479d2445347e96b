"""Cookies: read, set and cleared.

A second cookie of the same name is noticed. Scripts and other sites can't read the cookies that are set.
`clear_cookies` is the only place where a cookie is cleared, and it needs a cause.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import Refusal
from relay.sessions.base import Ended
from relay.sessions.cookies import SessionCookies, find_session


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """The attributes of a cookie. `secure` follows the scheme of public.url.

    `embedded` is for an application in a frame of another site. Browsers send its cookies there only with
    SameSite=None, and many block them there unless they are Partitioned (CHIPS): each embedding site has its own.
    """

    name: str
    max_age_s: int
    secure: bool
    embedded: bool = False


def read_cookie(request: Request, cookies: SessionCookies) -> str | Refusal:
    """Return the one value of the session cookies, joined if it came in parts.

    The raw headers are read. Starlette's parser keeps the last of two cookies of one name, and a cookie that a sibling
    host has planted would go unnoticed.
    """
    return find_session(request.headers.getlist("cookie"), cookies)


def set_cookie(response: Response, options: CookieOptions, value: str) -> None:
    """Set a cookie that scripts can't read and that other sites' requests don't carry (RFC 6265bis §4.1)."""
    _write(response, options, value, max_age_s=options.max_age_s)


def _write(response: Response, options: CookieOptions, value: str, *, max_age_s: int) -> None:
    # a cache that kept the answer with its cookies would give one user's session to the next one (RFC 9111 §7.3)
    response.headers["Cache-Control"] = "private, no-store"
    response.set_cookie(
        options.name,
        value,
        max_age=max_age_s,
        path="/",
        secure=options.secure,
        httponly=True,
        samesite="none" if options.embedded else "lax",
    )
    if options.embedded:
        # http.cookies knows the attribute since Python 3.14
        name, line = response.raw_headers[-1]
        response.raw_headers[-1] = (name, line + b"; Partitioned")


CLEARS_REFRESH: Final[Mapping[Ended, bool]] = {
    Ended.LOGGED_OUT: True,
    Ended.REVOKED: True,
    Ended.EXPIRED: False,
    Ended.WRONG_SIGNATURE: False,
    Ended.OTHER_KIND: False,
}
"""The causes that clear the access cookie, and whether they clear the refresh cookie too.

A refresh can replace an access token that has expired or is not one. It can't bring back a session that was ended.
"""


def clear_cookies(
    response: Response, why: Ended, *, access: CookieOptions | None, refresh: CookieOptions | None
) -> None:
    """Delete the cookies of a session that has ended. None: the relay has no such cookie."""
    for options in (access, refresh if CLEARS_REFRESH[why] else None):
        if options is not None:
            # the attributes must be those with which it was set
            _write(response, options, "", max_age_s=0)
