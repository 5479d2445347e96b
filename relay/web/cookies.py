"""Cookies: a second cookie of the same name is noticed, and scripts and other sites can't read those that are set."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import Refusal
from relay.sessions.cookies import SessionCookies, find_session


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """The attributes of a cookie. `secure` follows the scheme of public.url."""

    name: str
    max_age_s: int
    secure: bool


def read_cookie(request: Request, cookies: SessionCookies) -> str | Refusal:
    """Return the one value of the session cookies, joined if it came in parts.

    The raw headers are read. Starlette's parser keeps the last of two cookies of one name, and a cookie that a sibling
    host has planted would go unnoticed.
    """
    return find_session(request.headers.getlist("cookie"), cookies)


def set_cookie(response: Response, options: CookieOptions, value: str) -> None:
    """Set a cookie that scripts can't read and that other sites' requests don't carry (RFC 6265bis §4.1)."""
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
    """Delete a cookie in the browser. The attributes must be those with which it was set."""
    response.delete_cookie(options.name, path="/", secure=options.secure, httponly=True, samesite="lax")
