"""Where did this request come from? Asked by every route that changes something or gives a token away.

In this order (OWASP's "Fetch Metadata" and "verifying origin" defences):

1. An Origin header that is present must be the application's own or a trusted one, whatever else is said.
   Browsers send it with every POST and scripts can't set it.
2. Without it, `Sec-Fetch-Site: same-origin`; scripts can't set that either.
3. With neither, the header `X-Relay-CSRF: 1`, which another site can't send without a CORS preflight, and
   preflights are never answered here.

A call with a Bearer header and no cookie needs no such proof, because no browser sends that header by itself;
but an Origin that is no trusted one refuses it as well. `Authorization: Basic` proves nothing: browsers repeat
that of their own accord, as they do cookies.
"""

from dataclasses import dataclass

from starlette.requests import Request

from relay.core.bearer import bearer_token
from relay.core.errors import Reason, Refusal

HEADER = "X-Relay-CSRF"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrfOptions:
    """`origins` are the application's own and the trusted ones; `require_header` demands the header always."""

    origins: frozenset[str]
    require_header: bool


def check_csrf(request: Request, options: CsrfOptions) -> Refusal | None:
    """Return why the request can't be trusted to come from the application, or None if it can."""
    headers = request.headers
    bearer_alone = is_bearer(request) and "cookie" not in headers
    proven_by_header = headers.get(HEADER) == "1"
    origins = headers.getlist("origin")
    if origins:
        proven = len(origins) == 1 and origins[0] in options.origins
        detail = "Origin is not the application's."
    elif bearer_alone:
        proven, detail = True, ""
    elif sites := headers.getlist("sec-fetch-site"):
        proven = sites == ["same-origin"]
        detail = "Sec-Fetch-Site is not same-origin."
    else:
        proven = proven_by_header
        detail = f"No Origin, no Sec-Fetch-Site and no {HEADER} came."
    if proven and options.require_header and not (proven_by_header or bearer_alone):
        proven, detail = False, f"{HEADER}: 1 is demanded by csrf.require_header."
    return None if proven else Refusal(reason=Reason.CSRF_FAILED, detail=detail)


def is_bearer(request: Request) -> bool:
    """Tell whether the request carries one Authorization header, and that is a Bearer token (RFC 6750 §2.1)."""
    return isinstance(bearer_token(request.headers.getlist("authorization")), str)
