"""The internal listener's routes for operators: who may call them, and what they work on."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.keys.bearer import May
from relay.ops.connections import connections_handler
from relay.ops.operators import Operators
from relay.ops.revocations import Revocations
from relay.parts import Parts
from relay.sessions.refs import session_ref
from relay.stream.registry import Place, Registry
from relay.wiring.options import operator_terms


def operator_routes(parts: Parts, client_of: Callable[[Request], Client]) -> list[Route]:
    """Return the routes that need an operator's key."""
    operators = Operators(operator_terms(parts.settings), auditor=parts.auditor, client_of=client_of)
    registry = parts.stream.registry
    ref_key = parts.settings.session.ref_key.get_secret_value().encode()

    async def revoke(target: Target, *, client: Client, operator: str) -> int:
        closed = await parts.revoker.revoke(target, client=client, operator=operator)
        if target.kind is Kind.SESSION:
            parts.verifier.forget(
                target.name
            )  # after the revocation is recorded, see `SessionVerifier.forget`
        return closed

    revocations = Revocations(
        revoke=revoke,
        ref_of=lambda session_id: session_ref(ref_key, session_id=session_id, subject=""),
        client_of=client_of,
        keep_s=parts.settings.session.max_s,
    )
    connections = connections_handler(partial(_rows, registry), total=lambda: len(registry.connections))
    return [
        operators.route("/v1/revocations", revocations.serve, method="POST", may=May.REVOKE),
        operators.route("/v1/connections", connections, method="GET", may=May.READ),
    ]


def _rows(registry: Registry, place: Place, limit: int) -> Sequence[Mapping[str, Any]]:
    now = time.time()
    return [
        {
            "id": str(connection.id),
            "user": admission.claims.subject,
            "endpoint": admission.attempt.endpoint.name,
            "session": admission.claims.session_ref,
            "token": admission.claims.jti,
            "key": admission.kid,
            "origin": admission.attempt.origin,
            "address": admission.attempt.client.address,
            "opened_at": connection.opened_at,
            "age_s": round(max(0.0, now - connection.opened_at), 1),
            "messages_out": connection.messages_out,
        }
        for connection, admission in registry.after(place, limit=limit)
    ]
