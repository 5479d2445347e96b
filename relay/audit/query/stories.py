"""The story of a token, a connection or a user: what happened, in order and in plain words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from relay.audit.query.records import Reading, Record, having
from relay.core.closes import CloseCode
from relay.core.errors import EXPLANATIONS, Reason
from relay.core.events import ACTION_EXPLANATIONS, Action

Lines = Callable[[], Iterable[bytes]]
"""Reads the log from its beginning; called once for each pass."""

_PASSES = 4
"""A connection leads to its token, a refresh from there to the next one; longer chains are told from their middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened: when, who, from where, and what in a sentence. `marks` are its anomalies."""

    at: str
    action: str
    user: str
    address: str
    sentence: str
    marks: tuple[str, ...]


def why(lines: Lines, about: str, *, reading: Reading) -> list[Step]:
    """Return the story of a token's `jti`, a connection's id, or a user, oldest first.

    Of a token or connection everything belongs to it that has either of their ids; of a user what has that name.
    """
    known = {about}
    for _ in range(_PASSES):
        found = [record for record in reading.records(lines(), having(*known)) if _ids(record) & known]
        ids = set().union(*(_ids(record) for record in found))
        if not found or ids <= known:
            break
        known |= ids
    if not found:
        found = [record for record in reading.records(lines(), having(about)) if record.user.id == about]
    return [_step(record) for record in found]


def _ids(record: Record) -> set[str]:
    return {record.relay.token.jti, record.relay.connection.id} - {""}


def _step(record: Record) -> Step:
    return Step(
        at=record.at,
        action=record.event.action,
        user=record.user.id,
        address=record.client.ip,
        sentence=tell(record),
        marks=record.relay.anomalies,
    )


def tell(record: Record) -> str:
    """Return what a record says, in one sentence."""
    own = record.relay
    reason = f" {_explained(record.event.reason)}" if record.event.reason else ""
    match record.event.action:
        case Action.TOKEN_ISSUED:
            asked = ", ".join(own.asked.channels) or "all that is granted"
            refused = "".join(f" Not {no.channel}: {_explained(no.reason)}" for no in own.rejected)
            roles = f" as {', '.join(own.session.roles)}" if own.session.roles else ""
            granted = ", ".join(own.token.channels) or "the service"
            return f"A token for {own.endpoint}{roles}: asked for {asked}, granted {granted}.{refused}"
        case Action.TOKEN_DENIED:
            return f"No token was given.{reason}"
        case Action.CONNECT_ACCEPTED:
            first = f", subscribed to {_names(own.channels, own.count)}" if own.channels else ""
            way = f"The token was used up (as {own.token.transport})"
            return f"{way} and the connection to {own.endpoint} let in{first}."
        case Action.CONNECT_DENIED:
            return f"A connection was refused.{reason}"
        case Action.SUBSCRIBE_ACCEPTED:
            return f"Subscribed to {_names(own.channels, own.count)}."
        case Action.SUBSCRIBE_DENIED:
            return f"Was refused {_names(own.channels, own.count)}.{reason}"
        case Action.CONNECTION_REFRESHED:
            return "A new token carries the connection on."
        case Action.CONNECTION_CLOSED:
            return _ending(record)
    explained = next(
        (text for action, text in ACTION_EXPLANATIONS.items() if action == record.event.action), ""
    )
    return f"{explained}{reason}" if explained else record.event.action


def _ending(record: Record) -> str:
    connection, used = record.relay.connection, record.relay.connection.scopes
    lasted = "" if connection.duration_ms is None else f" after {connection.duration_ms / 1000:.1f} s"
    code = connection.close_code
    name = code if code is None or code not in set(CloseCode) else f"{code} {CloseCode(code).name.lower()}"
    unused = f" Granted and not used: {', '.join(used.unused)}." if used.unused else ""
    return (
        f"Ended by the {connection.initiator or 'relay'}{lasted} ({name}), "
        f"{connection.messages_out or 0} messages delivered.{unused}"
    )


def _names(channels: tuple[str, ...], count: int) -> str:
    more = count - len(channels)
    return ", ".join(channels) + (f" and {more} more" if more > 0 else "")


def _explained(reason: str) -> str:
    try:
        return EXPLANATIONS[Reason(reason)]
    except (ValueError, KeyError):
        return f"({reason})"  # of a newer relay
