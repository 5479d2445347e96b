"""Operators: people and tools with an API key (`Bearer name.secret`), and the permissions of each key.

`Operators.route` is the only way to make a route for operators, so no route can forget to check the key. A key opens
what its `may` names and nothing else; a publisher's key opens nothing here. Every call is in the audit log, and so is
every refused call: an operator can see and end the connections of users, and the log shows who did it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.audit.base import Auditor
from relay.core.bearer import bearer_token, claimed_name
from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.keys.api_keys import May, check_bearer
from relay.ops.repeated_calls import RepeatedCalls
from relay.web.answers import refusal_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTerms:
    """One operator's settings: the SHA-256 digests (hex) of its keys' secrets, and their permissions."""

    secret_sha256: tuple[str, ...] = field(repr=False)
    may: frozenset[May]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerResult:
    """The result of an operator's call: the answer, and the members of its audit record.

    A repeated call of one path is counted with the calls before it only if `same_as` is equal. `reason` is why the
    answer is a refusal.
    """

    response: Response
    recorded: Mapping[str, Any] = field(default_factory=dict)
    same_as: str = ""
    action: Action = Action.OPERATOR_ACTION
    reason: Reason | None = None


Handler = Callable[[Request, str], Awaitable[HandlerResult]]
"""Serves a call of the operator with this name. May raise `MalformedError` and `UnavailableError`."""


class Operators:
    """Makes the routes that need an operator's key."""

    def __init__(
        self,
        operators: Mapping[str, OperatorTerms],
        *,
        auditor: Auditor,
        client_of: Callable[[Request], Client],
    ) -> None:
        self.update(operators)
        self._auditor = auditor
        self._client_of = client_of
        self._repeated_calls = RepeatedCalls()

    def update(self, operators: Mapping[str, OperatorTerms]) -> None:
        """Use other keys and permissions for the next calls."""
        self._operators = operators
        self._digests = {name: terms.secret_sha256 for name, terms in operators.items()}

    def route(
        self,
        path: str,
        handler: Handler,
        *,
        method: Literal["GET", "POST", "DELETE"],
        may: May,
        repeated: bool = False,
    ) -> Route:
        """Return a route that calls `handler` for operators with the permission `may`.

        `repeated` is for routes that monitors call every few seconds: such calls are recorded once and then counted.
        """

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
                result = await handler(request, name)
            except MalformedError as error:
                refusal, message = Refusal.of(error), error.detail
            except UnavailableError as error:
                refusal = Refusal.of(error)
            else:
                calls = self._count_call(request, name, result.same_as) if repeated else 1
                if calls is not None:
                    recorded = result.recorded if calls == 1 else {**result.recorded, "calls": calls}
                    status = result.response.status_code
                    self._record(
                        request,
                        name,
                        status=status,
                        recorded=recorded,
                        reason=result.reason,
                        action=result.action,
                    )
                return result.response
        status = answer_for(refusal.reason).status
        detail: dict[str, Any] = {"detail": str(refusal)}
        if name is None and (claimed := claimed_name(request.headers.getlist("authorization"))):
            detail["claimed"] = {"operator": claimed}
        self._record(request, name or "", status=status, recorded=detail, reason=refusal.reason)
        return refusal_answer(refusal, message=message)

    def _count_call(self, request: Request, name: str, same_as: str) -> int | None:
        address = self._client_of(request).address
        return self._repeated_calls.count(name, address, f"{request.url.path} {same_as}")

    def _identify(self, request: Request) -> str | None:
        presented = bearer_token(request.headers.getlist("authorization"))
        return None if isinstance(presented, Refusal) else check_bearer(presented, self._digests)

    def _record(
        self,
        request: Request,
        name: str,
        *,
        status: int,
        recorded: Mapping[str, Any],
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
                relay={"operator": {"id": name}, "method": request.method} | dict(recorded),
            )
        )
