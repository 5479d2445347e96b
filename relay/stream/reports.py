"""The audit events of a connection's life."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from relay.core.closes import CloseCode, answer_for
from relay.core.errors import EXPLANATIONS, Reason
from relay.core.events import Action, Event
from relay.core.subscribers import Subscriber
from relay.stream.connection import StreamConnection
from relay.stream.gate import Admission, Denied
from relay.stream.usage import Usage


def accepted_event(connection: StreamConnection, admission: Admission, channels: Sequence[str]) -> Event:
    """The token was used and the connection let in, with what it subscribed to as it opened."""
    subscribed = {"channels": list(channels), "count": len(channels)}
    return _token_used(Action.CONNECT_ACCEPTED, connection, admission, status=101, more=subscribed)


def refreshed_event(connection: StreamConnection, admission: Admission) -> Event:
    """A connection showed a new token and goes on."""
    return _token_used(Action.CONNECTION_REFRESHED, connection, admission)


def denied_event(denied: Denied) -> Event:
    """A connection was refused, at the gate or with its first frame."""
    refusal, claims = denied.refusal, denied.claims
    # what a token that nobody vouches for has in its header is for its holder to look at, and not for the log
    detail = EXPLANATIONS[refusal.reason] if refusal.reason is Reason.TOKEN_HEADER else str(refusal)
    relay: dict[str, Any] = {"origin": denied.origin, "detail": detail}
    if claims is not None:
        relay["session"] = {"ref": claims.session_ref}
        relay["token"] = claims.record() | {"transport": denied.transport}
    elif denied.transport:
        relay["token"] = {"transport": denied.transport}
    return Event(
        action=Action.CONNECT_DENIED,
        reason=refusal.reason,
        user=claims.subject if claims else "",
        client=denied.client,
        status=answer_for(refusal.reason).status,
        path=denied.endpoint.path if denied.endpoint else "",
        endpoint=denied.endpoint.name if denied.endpoint else "",
        asker=(claims.asker or "") if claims else "",
        relay=relay,
    )


def subscription_event(
    connection: StreamConnection,
    admission: Admission,
    action: Action,
    channels: Sequence[str],
    reason: Reason | None,
) -> Event:
    """A connection subscribed, or was refused channels."""
    return Event(
        action=action,
        reason=reason,
        user=admission.claims.subject,
        client=admission.attempt.client,
        endpoint=admission.attempt.endpoint.name,
        relay={
            "channels": list(channels),
            "count": len(channels),
            "session": {"ref": admission.claims.session_ref},
            "token": {"jti": admission.claims.jti},
            "connection": {"id": str(connection.id)},
        },
    )


def closed_event(
    connection: StreamConnection, admission: Admission, subscriber: Subscriber, usage: Usage
) -> Event:
    """A connection is over: who ended it and how, what it got, and which of its grants it used."""
    code, reason, initiator = _ending(connection)
    return Event(
        action=Action.CONNECTION_CLOSED,
        reason=reason,
        user=admission.claims.subject,
        client=admission.attempt.client,
        path=admission.attempt.endpoint.path,
        endpoint=admission.attempt.endpoint.name,
        relay={
            "session": {"ref": admission.claims.session_ref},
            "token": {"jti": admission.claims.jti},
            "connection": {
                "id": str(connection.id),
                "close_code": code,
                "initiator": initiator,
                "duration_ms": int((time.time() - connection.opened_at) * 1000),
                "messages_out": subscriber.messages,
                "bytes_out": subscriber.bytes,
                "conflated": subscriber.conflated,
                **usage.described(),
            },
        },
    )


def _token_used(
    action: Action,
    connection: StreamConnection,
    admission: Admission,
    *,
    status: int | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Event:
    attempt, claims = admission.attempt, admission.claims
    return Event(
        action=action,
        user=claims.subject,
        client=attempt.client,
        status=status,
        path=attempt.endpoint.path,
        endpoint=attempt.endpoint.name,
        asker=claims.asker or "",
        relay={
            "origin": attempt.origin,
            "session": {"ref": claims.session_ref},
            "token": claims.record(kid=admission.kid) | {"transport": attempt.asked.transport},
            "connection": {"id": str(connection.id)},
            **more,
        },
    )


def _ending(connection: StreamConnection) -> tuple[int, Reason, str]:
    """Tell the close code, why, and who began it: the relay, the client, or the network."""
    protocol = connection.protocol
    if connection.ended is not None:
        return int(connection.ended.code), connection.ended.reason, "relay"
    if protocol.close_rcvd is not None and protocol.close_rcvd_then_sent:
        return protocol.close_rcvd.code, Reason.CLIENT_CLOSED, "client"
    if protocol.close_sent is not None:  # the library failed the connection (RFC 6455 §7.1.7)
        too_large = protocol.close_sent.code == CloseCode.TOO_LARGE
        return (
            protocol.close_sent.code,
            Reason.FRAME_TOO_LARGE if too_large else Reason.FRAME_MALFORMED,
            "relay",
        )
    return int(CloseCode.ABNORMAL), Reason.LINK_LOST, "network"
