"""GET /metrics and GET /v1/stats: the same readings, for Prometheus and as one JSON object."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relay.core.counters import BUCKET_BOUNDS_S, DurationHistogram
from relay.metrics.prometheus import Exposition, Workers
from relay.metrics.readings import Readings
from relay.ops.operators import Handler, HandlerResult
from relay.web.answers import json_answer


def metrics_handler(exposition: Exposition) -> Handler:
    """Return the handler of /metrics."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        body, media_type = exposition.write(request.headers.get("accept", ""))
        return HandlerResult(response=Response(body, media_type=media_type))

    return serve


Collect = Callable[[], Awaitable[Workers]]
"""Returns the metrics of all workers."""


def metrics_of_all_handler(exposition: Exposition, collect: Collect) -> Handler:
    """Return the handler of /metrics for all workers."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        body, media_type = exposition.write(request.headers.get("accept", ""), await collect())
        return HandlerResult(response=Response(body, media_type=media_type))

    return serve


def stats_handler(read: Callable[[], Readings]) -> Handler:
    """Return the handler of /v1/stats."""

    async def serve(_request: Request, _operator: str) -> HandlerResult:
        return HandlerResult(response=json_answer(200, stats(read())))

    return serve


def stats(now: Readings) -> Mapping[str, Any]:
    """Return readings as a JSON object. Counts are since the start: two requests give a rate."""
    return {
        "at": now.at,
        "started_at": now.started_at,
        "version": now.version,
        "role": now.role,
        "node": now.node,
        "stopping": now.stopping,
        "connections": sum(endpoint.connections for endpoint in now.endpoints.values()),
        "waiting": now.waiting,
        "endpoints": {name: asdict(endpoint) for name, endpoint in now.endpoints.items()},
        "hub": asdict(now.hub),
        "times": {
            "bounds_s": BUCKET_BOUNDS_S,
            "flush": _times(now.flushes),
            "write_turn": _times(now.turns),
            "loop_lag": _times(now.loop_lag),
        },
        "audit": {"waiting": now.audit_waiting, "lost": sum(now.audit_lost.values())},
        "state": {"waiting": now.state_waiting},
        "events": [{**key._asdict(), "count": count} for key, count in now.events.items()],
    }


def _times(times: DurationHistogram) -> Mapping[str, Any]:
    return {"counts": times.counts, "total_s": times.total_s}
