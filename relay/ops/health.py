"""GET /live and GET /ready, for load balancers and supervisors. They need no key, so they tell nothing else."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.web.answers import error_answer, json_answer

PATHS = frozenset({"/live", "/ready"})
ROLES = ("stream", "issuer", "ingest")
"""What `/ready?role=` may ask for: connections, tokens and the other calls of sessions, publications."""


def health_routes(
    ready: Mapping[str, Callable[[], str | None]], warning: Callable[[], str | None] = lambda: None
) -> list[Route]:
    """Return both routes. `ready` has a function for each role of this process: it returns None, or the reason why new
    work of this role should go to another node. Without `?role=` all of them count.

    `warning` returns what somebody has to change although this process serves, or None.
    """

    async def live(_request: Request) -> Response:
        return json_answer(200, {"status": "ok"})

    async def is_ready(request: Request) -> Response:
        role = request.query_params.get("role")
        if role is not None and role not in ROLES:
            return error_answer(400, "invalid_request", f"role is one of {', '.join(ROLES)}.")
        if role is not None and role not in ready:
            why: str | None = f"This process does not have the role {role}."
        else:
            asked = ready.values() if role is None else [ready[role]]
            why = next((found for found in (one() for one in asked) if found is not None), None)
        if why is not None:
            return error_answer(503, "not_ready", why, retryable=True)
        told = warning()
        return json_answer(200, {"status": "ok"} | ({} if told is None else {"warning": told}))

    return [Route("/live", live), Route("/ready", is_ready)]
