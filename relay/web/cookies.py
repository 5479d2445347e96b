"""Cookies: read so that a planted second one is noticed, set so that scripts and other sites can't reach them."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import Refusal
from relay.sessions.cookies import SessionCookies, find_session


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """How a cookie is set. `secure` follows the scheme of public.url."""

    name: str
    max_age_s: int
    secure: bool


def read_cookie(request: Request, cookies: SessionCookies) -> str | Refusal:
    """Return the one value that stands in `cookies`, put together where it came in parts.

    Starlette's parser keeps the last of two cookies of one name and forgets that there were two, so the headers
    are read as they came.
    """
    return find_session(request.headers.getlist("cookie"), cookies)


def set_cookie(response: Response, options: CookieOptions, value: str) -> None:
    """Set a cookie that scripts can't read and other sites' requests don't carry (RFC 6265bis §4.1)."""
    response.set_cookie(
        options.name,
        value,
        max_age=options.max_age_s,
        path="/",
        secure=options.secure,
        httponly=True,
        samesite="lax",
    )


def clear_cookie(response: Response, options: CookieOptions) -> None:
    """Have the browser drop the cookie; the attributes must be those it was set with."""
    response.delete_cookie(options.name, path="/", secure=options.secure, httponly=True, samesite="lax")
