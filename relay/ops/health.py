"""Is it alive, is it ready: for load balancers and supervisors, who have no key and are told nothing else."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.web.answers import error_answer, json_answer


def health_routes(ready: Callable[[], str | None]) -> list[Route]:
    """Return /live and /ready. `ready` gives None, or why new work should go elsewhere."""

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
