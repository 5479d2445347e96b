"""The connections of the HTTP listeners: their limits, and the audit event of a request that no route has seen."""

import ssl
from collections.abc import Sequence

from starlette.datastructures import Headers

from relay.core.closes import answer_for
from relay.core.errors import Refusal
from relay.core.events import Action, Client, Event
from relay.net.addresses import canonical_address, client_address, parse_networks
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.server.parts import Parts
from relay.web.bounded_protocol import ConnectionOptions


def connection_options(
    parts: Parts, tls: ssl.SSLContext | None, unauthenticated: UnauthenticatedConnections
) -> ConnectionOptions:
    """Return what the connections of one HTTP listener have in common."""
    settings = parts.settings
    trusted = parse_networks(settings.public.trusted_proxies)

    def refused(refusal: Refusal, address: str, fields: Sequence[tuple[bytes, bytes]]) -> None:
        headers = Headers(raw=list(fields))
        peer = canonical_address(address)
        client = Client(
            address=client_address(peer, headers.getlist("x-forwarded-for"), trusted),
            peer=peer,
            user_agent=headers.get("user-agent", ""),
        )
        parts.auditor.note(
            Event(
                action=Action.REQUEST_DENIED,
                reason=refusal.reason,
                client=client,
                status=answer_for(refusal.reason).status,
                relay={"detail": str(refusal)},
            )
        )

    return ConnectionOptions(
        tls=tls,
        keepalive_s=settings.listen.keepalive_s,
        unauthenticated=unauthenticated,
        refused=refused,
    )
