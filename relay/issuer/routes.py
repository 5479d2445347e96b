"""The issuer's HTTP side: POST /auth/ws-token, and the public keys at /.well-known/jwks.json."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.core.bearer import bearer_token
from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.issuer.service import Issued, Issuer, TokenRequest, parse_request
from relay.sessions.base import EndedRefusal, Session
from relay.sessions.cookies import SessionCookies
from relay.web.answers import json_answer, refusal_answer
from relay.web.bodies import read_json_object
from relay.web.cookies import OwnCookies, clear_cookies, read_cookie
from relay.web.csrf import CsrfCheck
from relay.web.endpoints import Endpoint
from relay.web.renewed import RENEWABLE, Renewed, SessionRenewal

MAX_BODY_BYTES = 8192
"""Longest body: a request with 32 channels of 64 characters has 2.3 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions:
    """The routes' settings."""

    csrf: CsrfCheck
    cookies: OwnCookies
    public_origin: str
    session_within_s: float | None
    """Seconds from a request's arrival within which its session must be checked, the wait for its turn included."""
    client_of: Callable[[Request], Client]
    renewal: SessionRenewal | None = None
    """Renews a session whose access token is missing or over. None: the relay has no refresh cookies."""


@dataclass(frozen=True, slots=True)
class _Denial:
    refusal: Refusal
    message: str | None = None
    retry_after_s: float | None = None
    asked: TokenRequest | None = None


def issuer_routes(
    issuer: Issuer, options: RouteOptions, jwks: Callable[[], Mapping[str, Any]]
) -> list[Route]:
    """Return the routes. The token's route has a second path, with the BFF's prefix. `jwks` gives the current keys."""

    async def ws_token(request: Request) -> Response:
        return await _ws_token(request, issuer, options)

    async def keys(_request: Request) -> Response:
        response = json_answer(200, jwks())
        response.headers["Cache-Control"] = "public, max-age=60"
        return response

    return [
        Route("/auth/ws-token", Endpoint(ws_token), methods=["POST"]),
        Route("/api/auth/ws-token", Endpoint(ws_token), methods=["POST"]),
        Route("/.well-known/jwks.json", Endpoint(keys), methods=["GET"]),
    ]


async def _ws_token(request: Request, issuer: Issuer, options: RouteOptions) -> Response:
    now = time.time()
    client = options.client_of(request)
    origin = _origin(request, options)
    session = await _authenticated(request, issuer, options, client, now=now)
    by_cookie = "authorization" not in request.headers  # otherwise a header is refused, and no cookie
    renewed = None
    can_renew = False
    if options.renewal is not None and by_cookie:
        if isinstance(session, Session):
            can_renew = await options.renewal.show(request)
        elif session.refusal.reason in RENEWABLE:
            renewed = await _renewed(request, options.renewal)
            session = renewed.session if isinstance(renewed, Renewed) else renewed or session
            can_renew = isinstance(session, Session)
    if isinstance(session, _Denial):
        result: Issued | _Denial = session
    else:
        result = await _issued(request, issuer, session, client, origin=origin, by_cookie=by_cookie, now=now)
    response = (
        _answer(result, session.life(now) if can_renew and isinstance(session, Session) else {})
        if isinstance(result, Issued)
        else _denied(request, issuer, options, result, session, client, origin=origin)
    )
    if isinstance(renewed, Renewed):
        renewed.set_cookies(request, response)
    return response


async def _renewed(request: Request, renewal: SessionRenewal) -> Renewed | _Denial | None:
    """Renew the session with the refresh cookie. None: there is none."""
    try:
        renewed = await renewal.renew(request)
    except UnavailableError as error:
        return _Denial(Refusal.of(error))
    if isinstance(renewed, Refusal):
        return None if renewed.reason is Reason.SESSION_MISSING else _Denial(renewed)
    return renewed


def _denied(
    request: Request,
    issuer: Issuer,
    options: RouteOptions,
    result: _Denial,
    session: Session | _Denial,
    client: Client,
    *,
    origin: str,
) -> Response:
    """Record a refusal, and return its answer. The cookies of a session that has ended are cleared."""
    status = answer_for(result.refusal.reason).status
    found = session if isinstance(session, Session) else None
    issuer.deny(result.refusal, client, status=status, session=found, asked=result.asked, origin=origin)
    response = refusal_answer(result.refusal, message=result.message, retry_after_s=result.retry_after_s)
    # If two cookies have one name, both stay: clearing removes the application's own one, and then only the one that a
    # sibling domain has set would be left.
    by_cookie = "authorization" not in request.headers
    if by_cookie and isinstance(result.refusal, EndedRefusal):
        clear_cookies(request, response, result.refusal.ended, options.cookies)
    return response


async def _authenticated(
    request: Request, issuer: Issuer, options: RouteOptions, client: Client, *, now: float
) -> Session | _Denial:
    """Return the session of a request.

    The address limit comes before everything that costs CPU, so that a flood costs little. It comes after the CSRF
    check: otherwise any page on the web could use up the limit of its visitors.
    """
    if refusal := options.csrf(request):
        return _Denial(refusal)
    if limited := await issuer.limits.address(client.address):
        return _Denial(limited.refusal, retry_after_s=limited.retry_after_s)
    credential = _credential(request, options.cookies.session)
    if isinstance(credential, Refusal):
        return _Denial(credential)
    try:
        check = issuer.authenticate(credential, now=now, caller=client.address)
        if options.session_within_s is not None:
            check = _in_time(check, request, options.session_within_s)
        session = await check
    except TimeoutError:
        return _Denial(
            Refusal(reason=Reason.BACKEND_UNAVAILABLE, detail="The session was not checked in time.")
        )
    except UnavailableError as error:
        return _Denial(Refusal.of(error))
    return _Denial(session) if isinstance(session, Refusal) else session


async def _in_time(
    check: Coroutine[Any, Any, Session | Refusal], request: Request, within_s: float
) -> Session | Refusal:
    """Limit the time of a session's check that waits for another server."""
    arrived: float = getattr(request.state, "arrived", asyncio.get_running_loop().time())
    async with asyncio.timeout_at(arrived + within_s):
        return await check


async def _issued(
    request: Request,
    issuer: Issuer,
    session: Session,
    client: Client,
    *,
    origin: str,
    by_cookie: bool,
    now: float,
) -> Issued | _Denial:
    """Read what is asked for, and issue a token for the part that the session's roles grant."""
    if limited := await issuer.limits.session(session.ref):
        return _Denial(limited.refusal, retry_after_s=limited.retry_after_s)
    try:
        body = await read_json_object(request, max_bytes=MAX_BODY_BYTES)
        asked = parse_request(body, issuer.options, origin=origin, bearer=not by_cookie)
        if isinstance(asked, Refusal):
            return _Denial(asked, message=asked.detail)
    except MalformedError as error:
        return _Denial(Refusal.of(error), message=error.detail)
    try:
        issued = await issuer.issue(session, asked, client, now=now)
    except UnavailableError as error:
        return _Denial(Refusal.of(error), asked=asked)
    return _Denial(issued, asked=asked) if isinstance(issued, Refusal) else issued


def _answer(issued: Issued, life: Mapping[str, int]) -> Response:
    return json_answer(
        200,
        {
            "wsToken": issued.token,
            "token_type": "N_A",  # RFC 8693 §2.2.1: not an access token for any API
            "expires_in": issued.expires_in,
            "endpoint": issued.audience,
            "channels": issued.granted,
            "rejected": [{"channel": channel, "code": "forbidden"} for channel in issued.rejected],
            **life,
        },
    )


def _origin(request: Request, options: RouteOptions) -> str:
    """Return the browser origin of a request, which the browser's own headers prove; "" without a browser."""
    if origin := request.headers.get("origin"):
        return origin
    if request.headers.get("sec-fetch-site") == "same-origin":
        return options.public_origin
    return ""


def _credential(request: Request, cookies: SessionCookies) -> str | Refusal:
    """Return the session's credential. A header wins over the cookie: a browser does not send it by itself."""
    if "authorization" not in request.headers:
        return read_cookie(request, cookies)
    token = bearer_token(request.headers.getlist("authorization"))
    if isinstance(token, Refusal):
        return Refusal(reason=Reason.SESSION_INVALID, detail="Authorization is not one Bearer token.")
    return token
