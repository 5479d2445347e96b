"""Cookies: read, set and cleared.

A second cookie of the same name is noticed. Scripts and other sites can't read the cookies that are set.
`clear_cookies` is the only place where a session's cookie is cleared, and it needs a cause.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import Refusal
from relay.sessions.base import Ended
from relay.sessions.cookies import SessionCookies, find_session, present, split


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCookies:
    """The cookies of sessions. `session` are those that are read, `access` and `refresh` those that a log-in sets.

    `refresh` is None without a log-in. `domains` are the public host and its parents, for which a sibling host can have
    planted a cookie.
    """

    session: SessionCookies
    access: CookieOptions
    refresh: CookieOptions | None
    domains: tuple[str, ...] = ()


def read_cookie(request: Request, cookies: SessionCookies) -> str | Refusal:
    """Return the one value of the session cookies, joined if it came in parts.

    The raw headers are read. Starlette's parser keeps the last of two cookies of one name, and a cookie that a sibling
    host has planted would go unnoticed.
    """
    return find_session(request.headers.getlist("cookie"), cookies)


def set_cookie(request: Request, response: Response, options: CookieOptions, value: str) -> None:
    """Set a cookie that scripts can't read and that other sites' requests don't carry (RFC 6265bis §4.1).

    A long value is set in chunks. What an earlier value has left in the browser is deleted: whole and chunks together
    would be refused.
    """
    pieces = split(options.name, value)
    for name, piece in pieces.items():
        _write(response, replace(options, name=name), piece)
    for name in present(request.headers.getlist("cookie"), options.name):
        if name not in pieces:
            _write(response, replace(options, name=name, max_age_s=0), "")


def _write(
    response: Response, options: CookieOptions, value: str, *, path: str = "/", domain: str | None = None
) -> None:
    # a cache that kept the answer with its cookies would give one user's session to the next one (RFC 9111 §7.3)
    response.headers["Cache-Control"] = "private, no-store"
    response.set_cookie(
        options.name,
        value,
        max_age=options.max_age_s,
        path=path,
        domain=domain,
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
    Ended.REFRESH_REFUSED: True,
    Ended.REFRESH_SPENT: True,
    Ended.EXPIRED: False,
    Ended.WRONG_SIGNATURE: False,
    Ended.OTHER_KIND: False,
}
"""The causes that clear the access cookie, and whether they clear the refresh cookie too.

A refresh can replace an access token that has expired or is not one. It can't bring back a session that was ended.
"""

_PATHS: Final = ("/", "/auth", "/api", "/api/auth")
"""Paths for which a cookie that was set twice may be stored: those of the relay's routes."""


def clear_cookies(request: Request, response: Response, why: Ended, cookies: OwnCookies) -> None:
    """Delete the cookies of a session that has ended, with their chunks.

    A log-out deletes the cookies of all names. If one came twice, it also deletes what may be stored for a parent
    domain or a longer path: otherwise that cookie would lock the user out after the next log-in too.
    """
    headers = request.headers.getlist("cookie")
    logged_out = why is Ended.LOGGED_OUT
    found: dict[str, bool] = {cookies.access.name: False} if logged_out else {}
    for name in cookies.session.names:
        found |= (of_name := present(headers, name))
        if of_name and not logged_out:
            break  # the session was in the cookie of this name, and the other ones were not looked at
    if cookies.refresh is not None and CLEARS_REFRESH[why]:
        found |= {cookies.refresh.name: False} | present(headers, cookies.refresh.name)
    for name, repeated in found.items():
        gone = replace(cookies.access, name=name, max_age_s=0)
        # path and domain must be those with which it was set
        _write(response, gone, "")
        if repeated and logged_out and not name.startswith("__Host-"):
            for path in _PATHS:
                for domain in (None, *cookies.domains):
                    if (path, domain) != ("/", None):
                        _write(response, gone, "", path=path, domain=domain)
