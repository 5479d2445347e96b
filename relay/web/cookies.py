"""Cookies: read so that a planted second one is noticed, set so that scripts and other sites can't reach them."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import Reason, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """How a cookie is set. `secure` follows the scheme of public.url."""

    name: str
    max_age_s: int
    secure: bool


def read_cookie(request: Request, name: str) -> str | Refusal:
    """Return the value of the one cookie called `name`.

    Two of that name are refused: a sibling domain can plant a second one, and which of them a parser takes is
    chance (cookie tossing). Starlette's parser keeps the last and forgets that there were two, so names are
    counted here; values are taken as they are, since base64url needs no decoding.
    """
    found = [
        value.strip().strip('"')
        for header in request.headers.getlist("cookie")
        for key, separator, value in (part.partition("=") for part in header.split(";"))
        if separator and key.strip() == name
    ]
    if len(found) > 1:
        return Refusal(reason=Reason.SESSION_REPEATED)
    if not found or not found[0]:
        return Refusal(reason=Reason.SESSION_MISSING)
    return found[0]


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
