"""The internal HTTP application: publishing, health, and the routes that need an operator's key."""

from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.engine.health import Health
from relay.ingest.openapi import DOCUMENT
from relay.ingest.routes import ingest_routes
from relay.ops.health import PATHS, health_routes
from relay.server.application import application
from relay.server.operators import operator_routes, values_route
from relay.server.parts import Parts
from relay.web.answers import json_answer
from relay.web.client_identity import client_reader
from relay.web.internal_only import InternalOnly


def internal_app(parts: Parts) -> Starlette:
    """Return the application that backends and operators reach."""
    client_of = client_reader(())  # this listener has no proxy in front
    routes: list[BaseRoute] = []
    if parts.role.ingests:
        routes += ingest_routes(
            parts.ingest,
            client_of,
            hub=parts.fanout.hub,
            for_operators=lambda path, read: values_route(parts, path, read),
        )
        routes.append(parts.ingest_sockets.route)
    routes += [
        *health_routes(_unready(parts)),
        *operator_routes(
            parts, client_of
        ),  # after /v1/channels/NAME/value, which DELETE /v1/channels/NAME matches too
        Route("/openapi.json", _openapi),
    ]
    hosts = frozenset(parts.settings.listen.internal_hosts)
    return application(routes, Middleware(InternalOnly, hosts=hosts, any_host=PATHS))


def _unready(parts: Parts) -> dict[str, Callable[[], str | None]]:
    """Return, for each role that this process has, what tells why new work should go to another node."""
    roles: dict[str, Callable[[Health], str | None]] = {}
    if parts.role.streams:
        roles["stream"] = lambda health: health.stream_unready
    if parts.role.issues:
        roles["issuer"] = lambda health: health.issuer_unready
    if parts.role.streams:
        roles["ingest"] = lambda health: health.ingest_unready

    def why(read: Callable[[Health], str | None]) -> str | None:
        if parts.stopping:
            return "The relay is stopping."
        return None if parts.engine is None else read(parts.engine.health)

    return {role: partial(why, read) for role, read in roles.items()}


async def _openapi(_request: Request) -> Response:
    return json_answer(200, DOCUMENT)
