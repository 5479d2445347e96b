"""What the audit log records: the actions, and one event's fields with their Elastic Common Schema names.

Records (`to_record`), metrics (`to_labels`) and the process's own log lines (`to_line`) are all made here from one
`Event`, so that they can't disagree. An event never holds a token, a cookie, a header value, a query string, a
session's id or a payload: the fields below are all there is.
Strings from outside are cut to a length here, because a log line that an attacker can stretch is a full disk.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from relay.core.errors import Reason

MAX_TEXT = 256
"""Characters kept of any string that came from outside. Longest legitimate one: a User-Agent, about 250."""

MAX_LIST = 64
"""Entries kept of a list or a mapping: twice the 32 channels that a token may name."""

MAX_DEPTH = 8
"""Levels kept of nested values; the records' own nesting has four."""


class Action(StrEnum):
    """Every `event.action` of the audit log."""

    TOKEN_ISSUED = "token.issued"
    TOKEN_DENIED = "token.denied"
    CONNECT_ACCEPTED = "connect.accepted"
    CONNECT_DENIED = "connect.denied"
    SUBSCRIBE_ACCEPTED = "subscribe.accepted"
    SUBSCRIBE_DENIED = "subscribe.denied"
    CONNECTION_REFRESHED = "connection.refreshed"
    CONNECTION_CLOSED = "connection.closed"
    SESSION_REVOKED = "session.revoked"
    PUBLISH_DENIED = "publish.denied"
    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    LOGOUT = "logout"
    KEY_ROTATED = "key.rotated"
    OPERATOR_ACTION = "operator.action"
    DENIALS_AGGREGATED = "denials.aggregated"
    AUDIT_READ = "audit.read"
    AUDIT_CHECKPOINT = "audit.checkpoint"
    AUDIT_GAP = "audit.gap"


ACTION_EXPLANATIONS: dict[Action, str] = {
    Action.TOKEN_ISSUED: (
        "A scoped token was handed out; the record has what was asked, what was granted, and why the rest was not."
    ),
    Action.TOKEN_DENIED: "A request for a scoped token was refused.",
    Action.CONNECT_ACCEPTED: (
        "A connection was let in and its token used up; the record has the channels that it subscribed to at once."
    ),
    Action.CONNECT_DENIED: "A connection, or its first frame's token, was refused.",
    Action.SUBSCRIBE_ACCEPTED: "A connection subscribed to further channels within its scope.",
    Action.SUBSCRIBE_DENIED: "A connection asked for channels outside its scope, or for too many.",
    Action.CONNECTION_REFRESHED: "A connection showed a new token and may go on; the token is used up.",
    Action.CONNECTION_CLOSED: (
        "A connection ended; the record has who ended it, what was delivered, and which grants were used."
    ),
    Action.SESSION_REVOKED: "A session, a user, a token or a key was cut off, with its open sockets.",
    Action.PUBLISH_DENIED: "A publication was refused.",
    Action.LOGIN_SUCCEEDED: "The backend accepted a log-in and the cookies were set.",
    Action.LOGIN_FAILED: "The backend refused a log-in; the name is kept only as a keyed hash.",
    Action.LOGOUT: "A user logged out.",
    Action.KEY_ROTATED: "A running relay signs with another key, knows a new one, or refuses one from now on.",
    Action.OPERATOR_ACTION: "An operator called the internal listener; with a reason, the call was refused.",
    Action.DENIALS_AGGREGATED: (
        "Denials beyond the budget of a user or an address, counted by action and reason for a minute."
    ),
    Action.AUDIT_READ: "An operator read the audit log through the relay.",
    Action.AUDIT_CHECKPOINT: (
        "The log's place, signed: nobody without the audit key can write anew what stands before it."
    ),
    Action.AUDIT_GAP: "Events could not be recorded; the record counts them by action.",
}
"""One sentence for each action, for the audit log's readers."""

_CATEGORIES: dict[Action, tuple[str, str]] = {
    Action.TOKEN_ISSUED: ("authentication", "start"),
    Action.TOKEN_DENIED: ("authentication", "denied"),
    Action.CONNECT_ACCEPTED: ("network", "allowed"),
    Action.CONNECT_DENIED: ("network", "denied"),
    Action.SUBSCRIBE_ACCEPTED: ("network", "access"),
    Action.SUBSCRIBE_DENIED: ("network", "denied"),
    Action.CONNECTION_REFRESHED: ("network", "allowed"),
    Action.CONNECTION_CLOSED: ("network", "end"),
    Action.SESSION_REVOKED: ("session", "end"),
    Action.PUBLISH_DENIED: ("api", "denied"),
    Action.LOGIN_SUCCEEDED: ("authentication", "start"),
    Action.LOGIN_FAILED: ("authentication", "denied"),
    Action.LOGOUT: ("session", "end"),
    Action.KEY_ROTATED: ("configuration", "change"),
    Action.OPERATOR_ACTION: ("api", "access"),
    Action.DENIALS_AGGREGATED: ("intrusion_detection", "denied"),
    Action.AUDIT_READ: ("api", "access"),
    Action.AUDIT_CHECKPOINT: ("configuration", "info"),
    Action.AUDIT_GAP: ("configuration", "error"),
}

SUBSCRIBES = frozenset({Action.CONNECT_ACCEPTED, Action.SUBSCRIBE_ACCEPTED})
"""Their records have the channels that a connection subscribed to: as it opened, or later."""

OF_THE_LOG = frozenset({Action.AUDIT_CHECKPOINT, Action.AUDIT_GAP})
"""Written by the log about itself: no observer sees them, so no count of events has them."""

_DENIALS = frozenset(
    {
        Action.TOKEN_DENIED,
        Action.CONNECT_DENIED,
        Action.SUBSCRIBE_DENIED,
        Action.PUBLISH_DENIED,
        Action.LOGIN_FAILED,
    }
)

_FAILURES = frozenset({Action.DENIALS_AGGREGATED, Action.AUDIT_GAP})


class Client(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who is at the other end, as far as the network tells: the socket's peer, and who is behind a proxy."""

    address: str = ""
    peer: str = ""
    user_agent: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that happened, before it has a time, an id or a place in the chain.

    `relay` holds the project's own fields, nested as they appear under `relay` in the record: `session.ref`,
    `token.{jti,kid,aud,scope,channels,iat,exp,transport}`, `connection.{id,...}`, `channels`, `publisher.id`,
    `anomalies`. `endpoint` is a name from the settings. `asker` is the claim of the event's token, to be compared
    with `client`; it is not recorded.

    A struct, which is made in an eighth of a frozen dataclass's time (0.2 µs of 1.7). The collector need not look at
    it (`gc`), because nothing in it leads back to it, and a queue of them waits for the log's thread.
    """

    action: Action
    reason: Reason | None = None
    user: str = ""
    client: Client = msgspec.field(default_factory=Client)
    status: int | None = None
    path: str = ""
    endpoint: str = ""
    asker: str = ""
    relay: Mapping[str, Any] = msgspec.field(default_factory=dict)


def clip(value: Any, *, depth: int = MAX_DEPTH) -> Any:
    """Return `value` with all strings, lists and levels in it cut to the sizes above, fit for strict JSON."""
    kind = type(value)
    if kind is str:
        return _clip_text(value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is dict or isinstance(
        value, Mapping
    ):  # exact types first: to ask an abstract one costs a microsecond
        return _clip_mapping(value, depth) if depth else "…"
    if isinstance(value, str):
        return _clip_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [clip(item, depth=depth - 1) for item in value[:MAX_LIST]] if depth else "…"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _clip_text(str(value))  # NaN too: it is not JSON


def _clip_mapping(value: Mapping[object, object], depth: int) -> dict[str, object]:
    clipped: dict[str, object] = {}
    for key, item in itertools.islice(value.items(), MAX_LIST):
        name = key if type(key) is str and len(key) <= MAX_TEXT and key.isascii() else _clip_text(str(key))
        plain = type(item) is str and len(item) <= MAX_TEXT and item.isascii()
        clipped[name] = item if plain else clip(item, depth=depth - 1)
    return clipped


def _clip_text(text: str) -> str:
    if text.isascii() and len(text) <= MAX_TEXT:
        return text
    # surrogates can't be written as UTF-8; a lone one in a header would lose the whole record
    text = text[: MAX_TEXT + 1].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def is_denial(event: Event) -> bool:
    """Tell whether a caller was refused something: anybody can cause that as often as he likes."""
    # what an operator asks for is one action, allowed or not: whoever reads the log wants both in one search
    return event.action in _DENIALS or (event.action is Action.OPERATOR_ACTION and event.reason is not None)


def outcome_of(event: Event) -> str:
    """Return the event's `event.outcome`: `success` or `failure`."""
    return "failure" if is_denial(event) or event.action in _FAILURES else "success"


def to_labels(event: Event) -> dict[str, str]:
    """Return what metrics may count by: `action`, `outcome`, `reason` and `endpoint`, each "" where there is none.

    All four are closed sets, of this package or of the settings: nobody outside can make a new time series.
    """
    return {
        "action": event.action.value,
        "outcome": outcome_of(event),
        "reason": event.reason.value if event.reason is not None else "",
        "endpoint": event.endpoint,
    }


def to_line(event: Event) -> dict[str, object]:
    """Return the event as the fields of one line of the process's own log; those that are empty are left out."""
    token, connection = event.relay.get("token", {}), event.relay.get("connection", {})
    line = to_labels(event) | {
        "user": event.user,
        "jti": token.get("jti", ""),
        "connection": connection.get("id", ""),
    }
    return {name: clip(value) for name, value in line.items() if value}


def to_record(event: Event, *, timestamp: str, event_id: str, node: str) -> dict[str, Any]:
    """Return `event` as a record of the audit log, without its chain fields and not cut to size (see `clip`).

    `timestamp` is ISO 8601 in UTC, `event_id` unique, `node` the name of this relay process.
    """
    category, kind = _CATEGORIES[event.action]
    record: dict[str, Any] = {
        "@timestamp": timestamp,
        "event": {
            "id": event_id,
            "action": event.action.value,
            "category": [category],
            "type": [kind],
            "outcome": outcome_of(event),
        },
        "service": {"node": {"name": node}},
    }
    if event.reason is not None:
        record["event"]["reason"] = event.reason.value
    if event.user:
        record["user"] = {"id": event.user}
    if event.client.address:
        record["client"] = {"ip": event.client.address}
    if event.client.peer:
        record["source"] = {"ip": event.client.peer}
    if event.client.user_agent:
        record["user_agent"] = {"original": event.client.user_agent}
    if event.status is not None:
        record["http"] = {"response": {"status_code": event.status}}
    if event.path:
        record["url"] = {"path": event.path}
    record["relay"] = {**event.relay, "endpoint": event.endpoint} if event.endpoint else dict(event.relay)
    return record
