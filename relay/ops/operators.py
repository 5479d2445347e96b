"""Operators: people and tools with a key of their own, `Bearer name.secret`, and what each may do.

There is one way to make a route for operators, and it asks for a key: a route that forgets to is one that can't be
written here. A key opens what its `may` names and nothing else; publishers' keys are looked up elsewhere and open
nothing here. Every call is in the audit log, refused ones too: whoever can see and cut off other people's
connections is watched doing it. What is called every few seconds is recorded once and then counted (`repeats`).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.audit.base import Auditor
from relay.core.bearer import bearer_token
from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.keys.api_keys import May, check_bearer
from relay.ops.repeats import Repeats
from relay.web.answers import refusal_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTerms:
    """An operator: the SHA-256 digests (hex) of the key's secrets, and what the key opens."""

    secret_sha256: tuple[str, ...] = field(repr=False)
    may: frozenset[May]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an operator's call led to: the answer, and what the audit log gets to know of it.

    `what` tells repeated calls of one path apart that each deserve a record.
    """

    response: Response
    noted: Mapping[str, Any] = field(default_factory=dict)
    what: str = ""
    action: Action = Action.OPERATOR_ACTION


Handler = Callable[[Request, str], Awaitable[Done]]
"""Serves an operator's call; gets the operator's name. May raise `MalformedError` and `UnavailableError`."""


class Operators:
    """Makes the routes that need an operator's key."""

    def __init__(
        self,
        operators: Mapping[str, OperatorTerms],
        *,
        auditor: Auditor,
        client_of: Callable[[Request], Client],
    ) -> None:
        self._operators = operators
        self._digests = {name: terms.secret_sha256 for name, terms in operators.items()}
        self._auditor = auditor
        self._client_of = client_of
        self._repeats = Repeats()

    def route(
        self,
        path: str,
        handler: Handler,
        *,
        method: Literal["GET", "POST"],
        may: May,
        repeated: bool = False,
    ) -> Route:
        """Return a route that calls `handler` for operators who may. `repeated`: somebody calls it all the time."""

        async def guarded(request: Request) -> Response:
            return await self._serve(request, handler, may, repeated=repeated)

        return Route(path, guarded, methods=[method])

    async def _serve(self, request: Request, handler: Handler, may: May, *, repeated: bool) -> Response:
        name = self._identify(request)
        message: str | None = None
        if name is None:
            refusal = Refusal(reason=Reason.OPERATOR_UNKNOWN)
        elif may not in self._operators[name].may:
            refusal = Refusal(
                reason=Reason.OPERATOR_FORBIDDEN, detail=f'It needs "{may}" in operators.{name}.may.'
            )
        else:
            try:
                done = await handler(request, name)
            except MalformedError as error:
                refusal, message = Refusal.of(error), error.detail
            except UnavailableError as error:
                refusal = Refusal.of(error)
            else:
                calls = self._calls(request, name, done.what) if repeated else 1
                if calls is not None:
                    noted = done.noted if calls == 1 else {**done.noted, "calls": calls}
                    status = done.response.status_code
                    self._note(request, name, status=status, noted=noted, action=done.action)
                return done.response
        status = answer_for(refusal.reason).status
        self._note(request, name or "", status=status, noted={"detail": str(refusal)}, reason=refusal.reason)
        return refusal_answer(refusal, message=message)

    def _calls(self, request: Request, name: str, what: str) -> int | None:
        return self._repeats.take(name, self._client_of(request).address, f"{request.url.path} {what}")

    def _identify(self, request: Request) -> str | None:
        presented = bearer_token(request.headers.getlist("authorization"))
        return None if isinstance(presented, Refusal) else check_bearer(presented, self._digests)

    def _note(
        self,
        request: Request,
        name: str,
        *,
        status: int,
        noted: Mapping[str, Any],
        reason: Reason | None = None,
        action: Action = Action.OPERATOR_ACTION,
    ) -> None:
        self._auditor.note(
            Event(
                action=action,
                reason=reason,
                client=self._client_of(request),
                status=status,
                path=request.url.path,
                relay={"operator": {"id": name}, "method": request.method} | dict(noted),
            )
        )
