"""GET /live and GET /ready, for load balancers and supervisors. They need no key, so they tell nothing else."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.web.answers import error_answer, json_answer

PATHS = frozenset({"/live", "/ready"})


def health_routes(ready: Callable[[], str | None]) -> list[Route]:
    """Return both routes. `ready` returns None, or the reason why new work should go to another node."""

    async def live(_request: Request) -> Response:
        return json_answer(200, {"status": "ok"})

    async def is_ready(_request: Request) -> Response:
        why = ready()
        return (
            json_answer(200, {"status": "ok"})
            if why is None
            else error_answer(503, "not_ready", why, retryable=True)
        )

    return [Route("/live", live), Route("/ready", is_ready)]
