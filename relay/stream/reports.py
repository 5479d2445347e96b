"""The audit events of a connection's life, for any transport."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from relay.core.closes import answer_for
from relay.core.errors import EXPLANATIONS, Reason
from relay.core.events import Action, Event
from relay.core.subscribers import Subscriber
from relay.stream.gate import Admitted, Denied
from relay.stream.registry import Connection
from relay.stream.usage import Usage


def accepted_event(connection: Connection, admitted: Admitted, channels: Sequence[str]) -> Event:
    """Return the event of an accepted connection, with the channels that it subscribes to as it opens."""
    subscribed = {"channels": list(channels), "count": len(channels)}
    return _token_used(
        Action.CONNECT_ACCEPTED, connection, admitted, status=connection.accepted_status, more=subscribed
    )


def refreshed_event(connection: Connection, admitted: Admitted) -> Event:
    """Return the event of a connection that was refreshed with a new token."""
    return _token_used(Action.CONNECTION_REFRESHED, connection, admitted)


def denied_event(denied: Denied) -> Event:
    """Return the event of a connection that was refused, with its handshake or with its first frame."""
    refusal, claims = denied.refusal, denied.claims
    # the header of a token without a valid signature can hold any text, which does not belong into the log
    detail = EXPLANATIONS[refusal.reason] if refusal.reason is Reason.TOKEN_HEADER else str(refusal)
    relay: dict[str, Any] = {"origin": denied.origin, "detail": detail}
    if refusal.setting:
        relay["setting"] = refusal.setting
    if denied.claimed:
        relay["claimed"] = dict(denied.claimed)
    if claims is not None:
        relay["session"] = {"ref": claims.session_ref}
        relay["token"] = claims.record(kid=denied.kid) | {
            "transport": denied.transport,
            "origin": claims.origin,
        }
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
    connection: Connection,
    admitted: Admitted,
    action: Action,
    channels: Sequence[str],
    reason: Reason | None,
) -> Event:
    """Return the event of an accepted subscription, or of refused channels."""
    return Event(
        action=action,
        reason=reason,
        user=admitted.claims.subject,
        client=admitted.attempt.client,
        endpoint=admitted.attempt.endpoint.name,
        relay={
            "channels": list(channels),
            "count": len(channels),
            "session": {"ref": admitted.claims.session_ref},
            "token": {"jti": admitted.claims.jti},
            "connection": {"id": str(connection.id)},
        },
    )


def closed_event(
    connection: Connection,
    admitted: Admitted,
    subscriber: Subscriber,
    usage: Usage,
    sent: Mapping[str, Any],
) -> Event:
    """Return the event of a closed connection: its end, what it was sent, and which of its grants it used."""
    code, reason, initiator = connection.ending()
    return Event(
        action=Action.CONNECTION_CLOSED,
        reason=reason,
        user=admitted.claims.subject,
        client=admitted.attempt.client,
        path=admitted.attempt.endpoint.path,
        endpoint=admitted.attempt.endpoint.name,
        relay={
            "session": {"ref": admitted.claims.session_ref},
            "token": {"jti": admitted.claims.jti},
            "connection": {
                "id": str(connection.id),
                "close_code": code,
                "initiator": initiator,
                "duration_ms": int(connection.age_s * 1000),
                "messages_out": subscriber.messages,
                "bytes_out": subscriber.bytes,
                "conflated": subscriber.conflated,
                **({"unsent_bytes": subscriber.unsent} if subscriber.unsent else {}),
                **usage.record(),
            },
            **sent,
        },
    )


def _token_used(
    action: Action,
    connection: Connection,
    admitted: Admitted,
    *,
    status: int | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Event:
    attempt, claims = admitted.attempt, admitted.claims
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
            "token": claims.record(kid=admitted.kid) | {"transport": attempt.request.transport},
            "connection": {"id": str(connection.id)},
            **more,
        },
    )
