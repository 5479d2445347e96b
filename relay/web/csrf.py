"""CSRF checks, for every route that changes something or returns a token.

The checks in their order (OWASP's "Fetch Metadata" and "verifying origin" defences):

1. If there is an Origin header, it must be the application's own or a trusted one. Nothing else can replace this.
   Browsers send it with every POST, and scripts can't set it.
2. Without Origin, `Sec-Fetch-Site: same-origin` is required. Scripts can't set it either.
3. Without both, the header `X-Relay-CSRF: 1` is required. Another site can't send it without a CORS preflight, and
   `relay.web.cors` answers those of the application's own origins only.

A call with a Bearer header and no cookie needs no proof, because no browser sends that header by itself. An untrusted
Origin refuses it all the same. `Authorization: Basic` proves nothing: browsers repeat it by themselves, like cookies.
"""

from dataclasses import dataclass

from starlette.requests import Request

from relay.core.bearer import bearer_token
from relay.core.errors import Reason, Refusal
from relay.core.origins import refused_origin

HEADER = "X-Relay-CSRF"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrfOptions:
    """`origins` are the application's own and the trusted ones; pages of `readers` may read answers of another origin.

    `require_header` requires X-Relay-CSRF always.
    """

    origins: frozenset[str]
    require_header: bool
    readers: frozenset[str] = frozenset()


class CsrfCheck:
    """The check with the current options. All routes have the same one, so that new options count everywhere."""

    def __init__(self, options: CsrfOptions) -> None:
        self._options = options

    def update(self, options: CsrfOptions) -> None:
        """Use other options for the next requests."""
        self._options = options

    def may_read(self, origin: str) -> bool:
        """Tell whether pages of `origin` may read the relay's answers, although they are of another origin."""
        return origin in self._options.readers

    def __call__(self, request: Request) -> Refusal | None:
        """See `check_csrf`."""
        return check_csrf(request, self._options)


def check_csrf(request: Request, options: CsrfOptions) -> Refusal | None:
    """Return why the request may come from another site, or None if it is proven to come from the application."""
    headers = request.headers
    bearer_alone = "cookie" not in headers and is_bearer(request)
    proven_by_header = headers.get(HEADER) == "1"
    origins = headers.getlist("origin")
    if origins:
        if len(origins) == 1 and origins[0] not in options.origins:
            return refused_origin(origins[0], callers=True)
        proven, detail = len(origins) == 1, "The request has two Origin headers."
    elif bearer_alone:
        proven, detail = True, ""
    elif sites := headers.getlist("sec-fetch-site"):
        proven = sites == ["same-origin"]
        detail = "Sec-Fetch-Site is not same-origin."
    else:
        proven = proven_by_header
        detail = f"The request has no Origin, no Sec-Fetch-Site and no {HEADER}."
    if proven and options.require_header and not (proven_by_header or bearer_alone):
        proven, detail = False, f"csrf.require_header requires {HEADER}: 1, which the request does not have."
    return None if proven else Refusal(reason=Reason.CSRF_FAILED, detail=detail)


def is_bearer(request: Request) -> bool:
    """Tell whether the request has one Authorization header with a Bearer token (RFC 6750 §2.1)."""
    return isinstance(bearer_token(request.headers.getlist("authorization")), str)
