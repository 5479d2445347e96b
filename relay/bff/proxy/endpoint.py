"""The ASGI application of the proxy: checks, limits, audit events and counts around each call."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.audit.base import Auditor
from relay.bff.proxy.access import Access, AccessTokens
from relay.bff.proxy.call import Call, CallOptions, RefusedCallError
from relay.bff.proxy.open_calls import OpenCalls
from relay.bff.proxy.requests import SAFE, CheckedRequest, Denied, RequestChecks
from relay.bff.proxy.upstream import Upstream
from relay.core.closes import answer_for
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.limits.requests import Limited
from relay.sessions.base import EndedRefusal, identity_of
from relay.web.answers import refusal_answer
from relay.web.client_link import ClientLink
from relay.web.cookies import OwnCookies, clear_cookies
from relay.web.csrf import CsrfCheck
from relay.web.endpoints import IndexedRequest

_KNOWN: Final = frozenset(int(status) for status in HTTPStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyParts:
    """What the proxy uses. Both limits count a request, and return a refusal if that is one too many."""

    checks: RequestChecks
    options: CallOptions
    upstream: Upstream
    open_calls: OpenCalls
    tokens: AccessTokens
    auditor: Auditor
    csrf: CsrfCheck
    cookies: OwnCookies
    client_of: Callable[[Request], Client]
    limit_address: Callable[[str], Awaitable[Limited | None]]
    limit_session: Callable[[str], Awaitable[Limited | None]]


@dataclass(slots=True)
class _Denial:
    """A refused request, with everything about it that is certain."""

    refusal: Refusal
    prefix: str = ""
    access: Access | None = None
    retry_after_s: float | None = None
    allow: str = ""
    close: bool = False
    started: bool = False


class ProxyEndpoint:
    """`ANY /api/proxy/{path}`."""

    def __init__(self, parts: ProxyParts) -> None:
        self._parts = parts
        self.answers: Counter[tuple[str, int]] = Counter()
        """Answers by the prefix of the route ("": none) and by status; 0 for a status that nobody knows."""

    @property
    def connections(self) -> int:
        """The number of open connections to the backend."""
        return self._parts.upstream.open

    def update(self, checks: RequestChecks, options: CallOptions) -> None:
        """Use other checks and options for the next requests. Calls that run keep theirs."""
        self._parts = replace(self._parts, checks=checks, options=options)

    async def aclose(self) -> None:
        """Close the connections to the backend."""
        await self._parts.upstream.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = IndexedRequest(scope, receive)
        client = self._parts.client_of(request)
        checked = self._parts.checks.check(request.method, request.state.target, scope["headers"])
        if isinstance(checked, Denied):
            denial: _Denial | None = _Denial(
                checked.refusal, checked.prefix, allow=checked.allow, close=checked.close
            )
        elif request.method == "OPTIONS":
            # never upstream, and without CORS headers: no other site's page may read anything here
            answer = Response(status_code=204, headers={"Allow": checked.route.allow})
            self._count(checked.prefix, 204)
            return await answer(scope, receive, send)
        else:
            denial = await self._call(request, checked, client, send)
        if denial is not None:
            await self._refuse(request, denial, client, send)
        return None

    async def _call(
        self, request: Request, checked: CheckedRequest, client: Client, send: Send
    ) -> _Denial | None:
        """Do the call, or return why not."""
        parts = self._parts
        access = None
        deny = partial(_Denial, prefix=checked.prefix)
        try:
            if request.method not in SAFE and (refusal := parts.csrf(request)):
                return deny(refusal)
            if limited := await parts.limit_address(client.address):
                return deny(limited.refusal, retry_after_s=limited.retry_after_s)
            found = await parts.tokens.find(request)
            if isinstance(found, Refusal):
                return deny(found)
            access = found
            deny = partial(deny, access=access)
            if limited := await parts.limit_session(access.session.ref):
                return deny(limited.refusal, retry_after_s=limited.retry_after_s)
            link: ClientLink = request.state.presence
            call = Call(
                checked,
                access,
                upstream=parts.upstream,
                options=parts.options,
                address=client.address,
                link=link,
                receive=request.receive,
                send=send,
                renew=partial(parts.tokens.renew, request),
            )
            if not parts.open_calls.add(call):
                return deny(Refusal(reason=Reason.CALLS_TOO_MANY))
            link.on_gone = partial(call.stop, Reason.CLIENT_CLOSED)
            try:
                if link.gone:
                    return None
                await call.run()
            finally:
                link.on_gone = None
                parts.open_calls.remove(call)
        except UnavailableError as error:
            return deny(Refusal.of(error))
        except RefusedCallError as error:
            return deny(error.refusal, access=call.access, started=error.started)
        self._count(checked.prefix, call.status)
        return None

    async def _refuse(self, request: Request, denial: _Denial, client: Client, send: Send) -> None:
        status = answer_for(denial.refusal.reason).status
        self._count(denial.prefix, status)
        session = denial.access.session if denial.access is not None else None
        if denial.refusal.reason not in (Reason.CLIENT_CLOSED, Reason.SERVER_STOPPING):  # nobody was refused
            user, identity = identity_of(denial.refusal, session)
            self._parts.auditor.note(
                Event(
                    action=Action.PROXY_DENIED,
                    reason=denial.refusal.reason,
                    user=user,
                    client=client,
                    status=status,
                    path=denial.prefix,
                    relay={"method": request.method[:16], "detail": str(denial.refusal)}
                    | ({"setting": denial.refusal.setting} if denial.refusal.setting else {})
                    | identity,
                )
            )
        link: ClientLink = request.state.presence
        if denial.started:
            return await link.cut()
        if link.gone:
            return None
        answer = refusal_answer(denial.refusal, retry_after_s=denial.retry_after_s)
        answer.headers["Cache-Control"] = "private, no-store"
        if denial.allow:
            answer.headers["Allow"] = denial.allow
        if denial.close:
            answer.headers["Connection"] = "close"
        if denial.access is not None:
            answer.raw_headers.extend(denial.access.cookies)
        if isinstance(denial.refusal, EndedRefusal):
            clear_cookies(request, answer, denial.refusal.ended, self._parts.cookies)
        return await answer(request.scope, request.receive, send)

    def _count(self, prefix: str, status: int) -> None:
        self.answers[prefix, status if status in _KNOWN or status == 499 else 0] += 1
