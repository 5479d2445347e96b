"""The internal listener's routes for operators, and the views that they show."""

import json
from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.core.errors import MalformedError
from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.core.scope import Scope
from relay.ingest.routes import ReadValues
from relay.keys.api_keys import May
from relay.keys.watched_folder import WatchedKeys
from relay.metrics.prometheus import Exposition, Workers
from relay.ops.audit_listing import audit_listing_handler, audit_timeline_handler
from relay.ops.channel_changes import remove_handler, reset_handler
from relay.ops.channels import channels_handler
from relay.ops.connections import connections_handler
from relay.ops.nodes import nodes_handler
from relay.ops.operators import Handler, HandlerResult
from relay.ops.page import page_routes
from relay.ops.publishers import publishers_handler
from relay.ops.revocations import Revocations
from relay.ops.stats import metrics_handler, metrics_of_all_handler, stats_handler
from relay.ops.workers import (
    Merge,
    merged_channels,
    merged_connections,
    merged_publishers,
    merged_stats,
    of_all,
)
from relay.server.nodes import NodeFigures, all_nodes
from relay.server.options import endpoint_of, ref_key, revocations_kept_s
from relay.server.parts import Parts
from relay.server.peers import Peers, answer_here
from relay.server.readings import ReadingsSource
from relay.sessions.session_ref import session_ref


def values_route(parts: Parts, path: str, read: ReadValues) -> Route:
    """Return an operators' route that reads values of all channels."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        answer = read(request, parts.fanout.hub, Scope((">",)))
        assert isinstance(answer, Response), "no channel is outside of this scope"
        return HandlerResult(response=answer)

    return parts.operators.route(path, serve, method="GET", may=May.READ, repeated=True)


def operator_routes(parts: Parts, client_of: Callable[[Request], Client]) -> list[Route]:
    """Return the routes that need an operator's key, and the page that uses them."""
    operators = parts.operators
    key = ref_key(parts.settings)

    async def revoke(target: Target, *, client: Client, operator: str) -> int:
        if target.kind is Kind.KEY and isinstance(parts.keys, WatchedKeys):
            # The folder decides. With a second place, an issuer could sign with a key that its gate refuses.
            raise MalformedError(
                f"The keys of this relay are the files in {parts.settings.tokens.keys_dir}: "
                "run `relay keys revoke KID`, which acts within a second."
            )
        return await parts.revoker.revoke(target, client=client, operator=operator)

    revocations = Revocations(
        revoke=revoke,
        ref_of=lambda session_id: session_ref(key, session_id=session_id, subject=""),
        client_of=client_of,
        keep_s=revocations_kept_s(parts.settings),
    )
    readings = ReadingsSource(parts)
    audit_path = parts.settings.audit.path

    figures = NodeFigures(parts)
    if parts.engine is not None:
        parts.engine.nodes.figures = figures.read
    exposition = Exposition(readings.read)
    peers = parts.peers

    def reading(path: str, handler: Handler, merge: Merge | None = None) -> Route:
        if peers is not None and merge is not None:
            peers.answer(path, partial(answer_here, handler, path))
            handler = of_all(handler, merge, peers.ask)
        return operators.route(path, handler, method="GET", may=May.READ, repeated=True)

    return [
        *page_routes(),
        operators.route("/v1/revocations", revocations.serve, method="POST", may=May.REVOKE),
        operators.route(
            "/v1/channels/reset", reset_handler(parts.ingest.reset), method="POST", may=May.RESET
        ),
        operators.route(
            "/v1/channels/{channel:path}", remove_handler(parts.ingest.remove), method="DELETE", may=May.RESET
        ),
        reading("/v1/connections", connections_handler(parts.stream.registry), merged_connections),
        reading("/v1/publishers", publishers_handler(parts.ingest), merged_publishers),
        reading(
            "/v1/channels", channels_handler(parts.fanout.hub, endpoint_of(parts.settings)), merged_channels
        ),
        reading("/v1/audit", audit_listing_handler(audit_path)),
        reading("/v1/audit/why", audit_timeline_handler(audit_path)),
        operators.route("/v1/audit/questions/{question}", parts.questions.serve, method="GET", may=May.READ),
        reading("/v1/nodes", nodes_handler(partial(all_nodes, parts, figures))),
        reading("/v1/stats", stats_handler(readings.read), merged_stats),
        reading("/metrics", _metrics_handler(exposition, peers)),
    ]


def _metrics_handler(exposition: Exposition, peers: Peers | None) -> Handler:
    if peers is None:
        return metrics_handler(exposition)

    async def samples(_query: str) -> bytes:
        return json.dumps(exposition.samples()).encode()

    async def collect() -> Workers:
        asked = await peers.ask_all("/metrics", "")
        return Workers({peers.number: exposition.samples(), **asked.answers}, asked.silent)

    peers.answer("/metrics", samples)
    return metrics_of_all_handler(exposition, collect)
