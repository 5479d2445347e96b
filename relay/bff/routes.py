"""Log-in and log-out: the browser sends credentials and gets HttpOnly cookies. No answer has a token in its body."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.audit.base import Auditor
from relay.bff.account_names import name_hmac
from relay.bff.backend import Backend, LoggedIn, Rejected
from relay.bff.cookie_life import until
from relay.bff.refresh import LoggedOut, Refresher
from relay.bff.user_objects import without_tokens
from relay.core.closes import answer_for
from relay.core.errors import DECIDED_BY, MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.limits.requests import Limited
from relay.limits.retry_after import jittered
from relay.sessions.base import Ended, Session, identity_of
from relay.sessions.cookies import SessionCookies, find_all, present
from relay.web.answers import error_answer, json_answer, refusal_answer
from relay.web.bodies import read_json_object
from relay.web.cookies import OwnCookies, clear_cookies, set_cookie
from relay.web.csrf import CsrfCheck
from relay.web.endpoints import Endpoint

MAX_BODY_BYTES = 4096
_STREAMS_GO_ON = "You are logged out here, but open streams could not be ended."
_SESSION_UNKNOWN = (
    "You are logged out in this browser. Which session it was could not be told, so it was not ended: "
    "its open streams and copies of its cookies work until their own end."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BffOptions:
    """The settings of the routes."""

    csrf: CsrfCheck
    cookies: OwnCookies
    ref_key: bytes = field(repr=False)
    login_names: tuple[str, ...] = ("email",)
    login_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BffParts:
    """The parts that the routes use. `authenticate` is the issuer's, `end_session` the stream's.

    `session_of` returns the session of a credential, also of one that has expired: access tokens live for minutes and
    sockets for an hour, so a log-out often comes with an expired token.

    `limit_address` counts each request of an address. `limit_login` counts log-ins by address and by account; the
    account is a keyed hash of its name. Both return None, or a refusal and the seconds to wait. `give_back_login` takes
    back what `limit_login` has counted.
    """

    backend: Backend
    auditor: Auditor
    client_of: Callable[[Request], Client]
    limit_address: Callable[[str], Awaitable[Limited | None]]
    limit_login: Callable[[str, str], Awaitable[Limited | None]]
    give_back_login: Callable[[str, str], Awaitable[None]]
    authenticate: Callable[[str], Awaitable[Session | Refusal]]
    session_of: Callable[[str], Awaitable[Session | Refusal]]
    end_session: Callable[[Session], Awaitable[None]]
    refresher: Refresher | None


def bff_routes(options: BffOptions, parts: BffParts) -> list[Route]:
    """Return the log-in and log-out routes."""

    async def login(request: Request) -> Response:
        return await _login(request, options, parts)

    async def logout(request: Request) -> Response:
        return await _logout(request, options, parts)

    return [
        Route("/api/auth/login", Endpoint(login), methods=["POST"]),
        Route("/api/auth/logout", Endpoint(logout), methods=["POST"]),
    ]


async def _login(request: Request, options: BffOptions, parts: BffParts) -> Response:
    client = parts.client_of(request)
    account = ""

    def refuse(rejected: Rejected) -> Response:
        refusal = rejected.refusal
        response = _rejection(rejected)
        parts.auditor.note(
            Event(
                action=Action.LOGIN_FAILED,
                reason=refusal.reason,
                client=client,
                status=response.status_code,
                # a hash, because people type passwords into the name's field
                relay={"detail": str(refusal)}
                | ({"setting": refusal.setting} if refusal.setting else {})
                | ({"name_hmac": account} if account else {}),
            )
        )
        return response

    # before the limits: otherwise any page on the web could use up the log-ins of its visitors
    if refusal := options.csrf(request):
        return refuse(Rejected(refusal=refusal))
    if limited := await parts.limit_address(client.address):
        return refuse(Rejected(refusal=limited.refusal, retry_after_s=limited.retry_after_s))
    try:
        body = await read_json_object(request, max_bytes=MAX_BODY_BYTES)
        credentials, name = _credentials(body, options)
    except MalformedError as error:
        return refuse(Rejected(refusal=Refusal.of(error), message=error.detail))
    account = name_hmac(options.ref_key, name)
    if limited := await parts.limit_login(client.address, account):
        return refuse(Rejected(refusal=limited.refusal, retry_after_s=limited.retry_after_s))
    try:
        result = await _checked(credentials, client, parts)
    except UnavailableError as error:
        result = Rejected(refusal=Refusal.of(error))
    if isinstance(result, Rejected):
        if answer_for(result.refusal.reason).status >= 500:
            await parts.give_back_login(client.address, account)
        return refuse(result)
    now = time.time()
    response = json_answer(200, {"user": result.user})
    access, refresh = options.cookies.access, options.cookies.refresh
    set_cookie(request, response, until(access, result.access_ends, now), result.access_token)
    if result.refresh_token is not None and refresh is not None:
        set_cookie(request, response, until(refresh, result.refresh_ends, now), result.refresh_token)
    return response


async def _checked(credentials: Mapping[str, object], client: Client, parts: BffParts) -> LoggedIn | Rejected:
    """Let the backend check the credentials, and check and record the session that it returns.

    Raises:
        UnavailableError: if the backend or another part that must answer did not, or not as it must.
    """
    result = await parts.backend.login(credentials, client)
    if isinstance(result, Rejected):
        return result
    try:
        user = without_tokens(result.user, result.tokens)
    except RecursionError:
        raise parts.backend.login_fault(
            "a user that is nested too deeply", expected="an object of at most some hundred levels"
        ) from None
    session = await parts.authenticate(result.access_token)
    if isinstance(session, Refusal):
        # the issuer would refuse this session's requests for tokens, so the log-in would be useless
        if session.reason is Reason.SESSION_REVOKED:  # of sessions without an id, until the next second
            raise UnavailableError(Reason.BACKEND_UNAVAILABLE, "The new session counts as revoked.")
        raise parts.backend.login_fault(
            f"an access token that is refused here: {str(session).rstrip('.')}",
            expected="a session",
            setting=session.setting or DECIDED_BY[session.reason],
        )
    if parts.refresher is not None and result.refresh_token is not None:
        await parts.refresher.begin(session, result.refresh_token, client)
    await parts.auditor.record(
        Event(
            action=Action.LOGIN_SUCCEEDED,
            user=session.subject,
            client=client,
            status=200,
            relay={"session": {"ref": session.ref}},
        )
    )
    return replace(result, user=user, access_ends=session.token_expires_at)


def _rejection(rejected: Rejected) -> Response:
    """Return the answer to a refused log-in: the relay's own, with what is passed on of the backend's."""
    refusal, answer = rejected.refusal, answer_for(rejected.refusal.reason)
    if rejected.status is None:
        return refusal_answer(refusal, message=rejected.message, retry_after_s=rejected.retry_after_s)
    return error_answer(
        rejected.status,
        rejected.code or answer.code,
        rejected.message or answer.message,
        retryable=rejected.status == 429,
        retry_after_s=rejected.retry_after_s,
    )


async def _logout(request: Request, options: BffOptions, parts: BffParts) -> Response:
    """Clear the cookies, whatever they hold, and end every session that they hold.

    Two cookies of one name may be two sessions: one of them planted, or left over. A client that sends both has both.
    """
    client = parts.client_of(request)
    if refusal := options.csrf(request):
        parts.auditor.note(forged_event(Action.LOGOUT, refusal, client))
        return refusal_answer(refusal)
    if limited := await parts.limit_address(client.address):
        response = refusal_answer(
            limited.refusal, message=_STREAMS_GO_ON, retry_after_s=limited.retry_after_s
        )
    else:
        response = await _end_sessions(request, options, parts, client)
    clear_cookies(request, response, Ended.LOGGED_OUT, options.cookies)
    return response


async def _end_sessions(request: Request, options: BffOptions, parts: BffParts, client: Client) -> Response:
    """End the sessions in a request's cookies, and say so if none can be told."""
    headers = request.headers.getlist("cookie")
    credentials, unknown = find_all(headers, options.cookies.session)
    ended = False
    try:
        # first the log-ins with their sessions: what ends with them is over then, and has no second record
        for one in await _end_families(headers, options, parts):
            parts.auditor.note(_logged_out(client, one.family.subject, one.family.session, one.untold))
            ended = True
        for credential in credentials:
            found = await parts.session_of(credential)
            if isinstance(found, Session):
                await parts.end_session(found)
                parts.auditor.note(_logged_out(client, found.subject, found.ref))
            elif found.reason is not Reason.SESSION_REVOKED:  # a revoked one has ended already
                unknown = found
                continue
            ended = True
    except UnavailableError:
        # the cookies are cleared in any case, but the answer must not say that the sockets are closed
        return error_answer(503, "unavailable", _STREAMS_GO_ON, retryable=True, retry_after_s=jittered())
    refresh = options.cookies.refresh
    if ended or (unknown is None and not (refresh and present(headers, refresh.name))):
        return Response(status_code=204)
    # without a session cookie, a refresh cookie says that there was a session
    parts.auditor.note(_not_ended(client, unknown or Refusal(reason=Reason.SESSION_MISSING)))
    return json_answer(200, {"code": "session_unknown", "message": _SESSION_UNKNOWN})


async def _end_families(headers: Sequence[str], options: BffOptions, parts: BffParts) -> list[LoggedOut]:
    """End the log-ins of the refresh cookies with all their sessions, also if the access token is over.

    Return those that are known here.
    """
    refresh = options.cookies.refresh
    if parts.refresher is None or refresh is None:
        return []
    tokens, _ = find_all(headers, SessionCookies(names=(refresh.name,)))
    found = [await parts.refresher.log_out(token) for token in tokens]
    return [one for one in found if one is not None]


def _logged_out(client: Client, user: str, ref: str, untold: Refusal | None = None) -> Event:
    """Return the record of a log-out. `untold` says why the backend does not know of it."""
    relay = {"session": {"ref": ref}} | ({"detail": str(untold)} if untold else {})
    return Event(action=Action.LOGOUT, user=user, client=client, status=204, relay=relay)


def forged_event(action: Action, refusal: Refusal, client: Client) -> Event:
    """Return the record of a request that nothing proves to come from the application."""
    relay = {"detail": str(refusal)} | ({"setting": refusal.setting} if refusal.setting else {})
    status = answer_for(refusal.reason).status
    return Event(action=action, reason=refusal.reason, client=client, status=status, relay=relay)


def _not_ended(client: Client, refusal: Refusal) -> Event:
    """Return the record of a log-out that ended no session: its sockets stay open until their own end."""
    user, identity = identity_of(refusal)
    return Event(
        action=Action.LOGOUT,
        reason=refusal.reason,
        user=user,
        client=client,
        status=200,
        relay={"detail": str(refusal)} | identity,
    )


def _credentials(body: dict[str, Any], options: BffOptions) -> tuple[dict[str, object], str]:
    """Return what is sent to the backend, and the name by which the log-in is counted.

    Raises:
        MalformedError: if it is not one name and a password, or a further field is no simple value.
    """
    named = {key: body[key] for key in options.login_names if key in body}
    credentials = named | {"password": body.get("password")}
    if len(named) != 1 or not all(isinstance(value, str) and value for value in credentials.values()):
        names = " or ".join(f'"{name}"' for name in options.login_names)
        raise MalformedError(f'Send {{{names}: …, "password": …}}, both texts that are not empty.')
    for key in options.login_fields:
        if key in body:
            if not isinstance(body[key], str | int | float | bool | None):
                raise MalformedError(f"{key} must be a text, a number, true, false or null.")
            credentials[key] = body[key]
    return credentials, str(next(iter(named.values())))
