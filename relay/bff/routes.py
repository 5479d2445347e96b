"""Log-in and log-out: the browser sends credentials and gets HttpOnly cookies. No answer has a token in its body."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.audit.base import Auditor
from relay.bff.backend import Backend, LoggedIn
from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.limits.requests import Limited
from relay.limits.retry_after import jittered
from relay.sessions.base import Ended, RefusedSession, Session
from relay.sessions.cookies import SessionCookies
from relay.web.answers import error_answer, json_answer, refusal_answer
from relay.web.bodies import read_json_object
from relay.web.cookies import CookieOptions, clear_cookies, read_cookie, set_cookie
from relay.web.csrf import CsrfCheck

MAX_BODY_BYTES = 4096
_STREAMS_GO_ON = "You are logged out here, but open streams could not be ended."
MAX_COOKIE_BYTES = 4000
"""Browsers silently drop a cookie above 4096 bytes, name and attributes included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BffOptions:
    """The settings of the routes."""

    csrf: CsrfCheck
    session: SessionCookies
    access_cookie: CookieOptions
    refresh_cookie: CookieOptions
    ref_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BffParts:
    """The parts that the routes use. `authenticate` is the issuer's, `end_session` the stream's.

    `session_of` returns the session of a credential, also of one that has expired: access tokens live for minutes and
    sockets for an hour, so a log-out often comes with an expired token.

    `limit_address` counts each request of an address. `limit_login` counts log-ins by address and by account; the
    account is a keyed hash of its name. Both return None, or a refusal and the seconds to wait.
    """

    backend: Backend
    auditor: Auditor
    client_of: Callable[[Request], Client]
    limit_address: Callable[[str], Awaitable[Limited | None]]
    limit_login: Callable[[str, str], Awaitable[Limited | None]]
    authenticate: Callable[[str], Awaitable[Session | Refusal]]
    session_of: Callable[[str], Awaitable[Session | Refusal]]
    end_session: Callable[[Session], Awaitable[None]]


def bff_routes(options: BffOptions, parts: BffParts) -> list[Route]:
    """Return the log-in and log-out routes."""

    async def login(request: Request) -> Response:
        return await _login(request, options, parts)

    async def logout(request: Request) -> Response:
        return await _logout(request, options, parts)

    return [
        Route("/api/auth/login", login, methods=["POST"]),
        Route("/api/auth/logout", logout, methods=["POST"]),
    ]


async def _login(request: Request, options: BffOptions, parts: BffParts) -> Response:
    client = parts.client_of(request)
    name = ""

    def refuse(
        refusal: Refusal, *, message: str | None = None, retry_after_s: float | None = None
    ) -> Response:
        parts.auditor.note(
            Event(
                action=Action.LOGIN_FAILED,
                reason=refusal.reason,
                client=client,
                status=answer_for(refusal.reason).status,
                # a hash, because people type passwords into the name's field
                relay={"detail": str(refusal)}
                | ({"setting": refusal.setting} if refusal.setting else {})
                | ({"name_hmac": _name_hmac(options.ref_key, name)} if name else {}),
            )
        )
        return refusal_answer(refusal, message=message, retry_after_s=retry_after_s)

    try:
        # before the limits: otherwise any page on the web could use up the log-ins of its visitors
        if refusal := options.csrf(request):
            return refuse(refusal)
        if limited := await parts.limit_address(client.address):
            return refuse(limited.refusal, retry_after_s=limited.retry_after_s)
        credentials = _credentials(await read_json_object(request, max_bytes=MAX_BODY_BYTES))
        name = credentials["email"]
        if limited := await parts.limit_login(client.address, _name_hmac(options.ref_key, name)):
            return refuse(limited.refusal, retry_after_s=limited.retry_after_s)
        result = await parts.backend.login(credentials)
        if isinstance(result, Refusal):
            return refuse(result)
        if max(len(result.access_token), len(result.refresh_token)) > MAX_COOKIE_BYTES:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE,
                f"The backend's tokens do not fit into a cookie of {MAX_COOKIE_BYTES} bytes.",
            )
        user = _without_tokens(result.user, result)
        session = await parts.authenticate(result.access_token)
        if isinstance(session, Refusal):
            # the issuer would refuse this session's requests for tokens, so the log-in would be useless
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE, f"The backend's access token is not accepted here: {session}"
            )
        await parts.auditor.record(
            Event(
                action=Action.LOGIN_SUCCEEDED,
                user=session.subject,
                client=client,
                status=200,
                relay={"session": {"ref": session.ref}},
            )
        )
    except MalformedError as error:
        return refuse(Refusal.of(error), message=error.detail)
    except UnavailableError as error:
        return refuse(Refusal.of(error))
    response = json_answer(200, {"user": user})
    set_cookie(response, options.access_cookie, result.access_token)
    set_cookie(response, options.refresh_cookie, result.refresh_token)
    return response


async def _logout(request: Request, options: BffOptions, parts: BffParts) -> Response:
    """Clear the cookies, whatever they hold, and end the session's sockets if the session is known."""
    client = parts.client_of(request)
    if refusal := options.csrf(request):
        return refusal_answer(refusal)
    response: Response = Response(status_code=204)
    limited = await parts.limit_address(client.address)
    try:
        session = limited.refusal if limited else await _session(request, options, parts)
        if isinstance(session, Session):
            await parts.end_session(session)
            parts.auditor.note(
                Event(
                    action=Action.LOGOUT,
                    user=session.subject,
                    client=client,
                    status=204,
                    relay={"session": {"ref": session.ref}},
                )
            )
        elif session.reason is Reason.SESSION_EXPIRED:
            # the session is not known any more: its sockets stay open until their own end
            known = session.session if isinstance(session, RefusedSession) else None
            claimed = session.claimed if isinstance(session, RefusedSession) else {}
            parts.auditor.note(
                Event(
                    action=Action.LOGOUT,
                    reason=session.reason,
                    user=known.subject if known else "",
                    client=client,
                    status=204,
                    relay=({"session": {"ref": known.ref}} if known else {})
                    | ({"claimed": dict(claimed)} if claimed else {}),
                )
            )
    except UnavailableError:
        # the cookies are cleared in any case, but the answer must not say that the sockets are closed
        response = error_answer(
            503,
            "unavailable",
            _STREAMS_GO_ON,
            retryable=True,
            retry_after_s=jittered(),
        )
    if limited:
        response = refusal_answer(
            limited.refusal, message=_STREAMS_GO_ON, retry_after_s=limited.retry_after_s
        )
    clear_cookies(response, Ended.LOGGED_OUT, access=options.access_cookie, refresh=options.refresh_cookie)
    return response


async def _session(request: Request, options: BffOptions, parts: BffParts) -> Session | Refusal:
    credential = read_cookie(request, options.session)
    return credential if isinstance(credential, Refusal) else await parts.session_of(credential)


def _credentials(body: dict[str, Any]) -> dict[str, str]:
    email, password = body.get("email"), body.get("password")
    if not isinstance(email, str) or not isinstance(password, str) or not email or not password:
        raise MalformedError('Send {"email": …, "password": …}, both texts that are not empty.')
    return {"email": email, "password": password}


def _name_hmac(key: bytes, name: str) -> str:
    return hmac.new(key, f"name:{name.strip().lower()}".encode(), hashlib.sha256).hexdigest()[:32]


def _without_tokens(user: dict[str, Any], tokens: LoggedIn) -> dict[str, Any]:
    """Return `user` without each member and entry that contains one of the tokens, in its name or its value.

    A backend may repeat a token in the user object, and scripts in the browser can read that object.

    Raises:
        UnavailableError: if it is nested too deeply to be searched.
    """

    def holds(item: Any) -> bool:
        return isinstance(item, str) and (tokens.access_token in item or tokens.refresh_token in item)

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items() if not holds(key) and not holds(item)}
        if isinstance(value, list):
            return [clean(item) for item in value if not holds(item)]
        return value

    try:
        return {key: clean(item) for key, item in user.items() if not holds(key) and not holds(item)}
    except RecursionError:
        raise UnavailableError(
            Reason.BACKEND_UNAVAILABLE, "The backend's user object is nested too deeply."
        ) from None
