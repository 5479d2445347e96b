"""The internal HTTP application: publishing, health, and the routes that need an operator's key."""

from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.ingest.openapi import DOCUMENT
from relay.ingest.routes import ingest_routes
from relay.ops.health import PATHS, health_routes
from relay.server.application import application
from relay.server.nodes import unready, warning
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
        *health_routes(unready(parts), partial(warning, parts)),
        # after /v1/channels/NAME/value, which DELETE /v1/channels/NAME matches too
        *operator_routes(parts, client_of),
        Route("/openapi.json", _openapi),
    ]
    hosts = frozenset(parts.settings.listen.internal_hosts)
    return application(routes, Middleware(InternalOnly, hosts=hosts, any_host=PATHS))


async def _openapi(_request: Request) -> Response:
    return json_answer(200, DOCUMENT)
