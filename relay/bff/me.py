"""GET /api/auth/me: the user of a session, as the backend describes it. A page asks it once when it loads."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.audit.base import Auditor
from relay.bff.backend import Backend, Rejected
from relay.bff.proxy.access import Access, AccessTokens
from relay.bff.user_objects import without_tokens
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.limits.requests import Limited
from relay.sessions.base import EndedRefusal, identity_of
from relay.web.answers import json_answer, refusal_answer
from relay.web.cookies import OwnCookies, clear_cookies
from relay.web.endpoints import Endpoint

PATH = "/api/auth/me"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeParts:
    """What the route uses. Both limits count a request, and return a refusal if that is one too many."""

    backend: Backend
    tokens: AccessTokens
    auditor: Auditor
    client_of: Callable[[Request], Client]
    limit_address: Callable[[str], Awaitable[Limited | None]]
    limit_session: Callable[[str], Awaitable[Limited | None]]
    cookies: OwnCookies


def me_route(parts: MeParts) -> Route:
    """Return the route. It changes nothing, so it needs no proof of the application's page; others can't read it."""

    async def me(request: Request) -> Response:
        client = parts.client_of(request)
        access, result = await _user(request, client, parts)
        if isinstance(result, Rejected):
            response = _refused(request, result, access, client, parts)
        else:
            life = access.session.life(time.time()) if access is not None and access.renewable else {}
            response = json_answer(200, {"user": result, **life})
        response.headers["Cache-Control"] = "private, no-store"
        if access is not None:
            response.raw_headers.extend(access.cookies)
        return response

    return Route(PATH, Endpoint(me), methods=["GET"])


async def _user(
    request: Request, client: Client, parts: MeParts
) -> tuple[Access | None, dict[str, object] | Rejected]:
    """Return the access token that was used, and the user or why there is none."""
    access: Access | None = None
    try:
        if limited := await parts.limit_address(client.address):
            return None, Rejected(refusal=limited.refusal, retry_after_s=limited.retry_after_s)
        found = await parts.tokens.find(request)
        if isinstance(found, Refusal):
            return None, Rejected(refusal=found)
        access = found
        if limited := await parts.limit_session(access.session.ref):
            return access, Rejected(refusal=limited.refusal, retry_after_s=limited.retry_after_s)
        result = await parts.backend.me(access.token, client)
        if isinstance(result, Rejected) and result.refusal.reason is Reason.SESSION_EXPIRED:
            renewed = await parts.tokens.renew(request, access)
            if isinstance(renewed, Access):
                access = renewed
                result = await parts.backend.me(access.token, client)
            elif renewed is not None:
                result = Rejected(refusal=renewed)
        if isinstance(result, Rejected):
            return access, result
        return access, without_tokens(result, access.secrets)
    except UnavailableError as error:
        return access, Rejected(refusal=Refusal.of(error))
    except RecursionError:
        fault = parts.backend.me_fault(
            "a user that is nested too deeply", expected="an object of at most some hundred levels"
        )
        return access, Rejected(refusal=Refusal.of(fault))


def _refused(
    request: Request, rejected: Rejected, access: Access | None, client: Client, parts: MeParts
) -> Response:
    refusal = rejected.refusal
    response = refusal_answer(refusal, retry_after_s=rejected.retry_after_s)
    if refusal.reason is not Reason.SESSION_MISSING:  # the question of each visitor who has not logged in yet
        user, identity = identity_of(refusal, None if access is None else access.session)
        parts.auditor.note(
            Event(
                action=Action.PROXY_DENIED,
                reason=refusal.reason,
                user=user,
                client=client,
                status=response.status_code,
                path=PATH,
                relay={"detail": str(refusal)} | identity,
            )
        )
    if isinstance(refusal, EndedRefusal):
        clear_cookies(request, response, refusal.ended, parts.cookies)
    return response
