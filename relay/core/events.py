"""Events of the audit log: the actions, and the fields with their Elastic Common Schema names.

Audit records (`to_record`), metrics (`to_labels`) and lines of the process's own log (`to_line`) are all made here from
one `Event`, so that they agree. An event never contains a token, a cookie, a header value, a query string, a session's
id or a payload: it has the fields below and no others.

Strings from outside are cut to a length here. If attackers could choose the length of a record, they could fill the
disk.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from relay.core.errors import Reason

MAX_TEXT = 256
"""Characters that are kept of a string from outside. The longest ordinary one is a User-Agent, with about 250."""

MAX_LIST = 64
"""Entries that are kept of a list or mapping: twice the 32 channels that a token may name."""

MAX_DEPTH = 8
"""Levels that are kept of nested values. Ordinary records have four."""


class Action(StrEnum):
    """Every `event.action` of the audit log."""

    TOKEN_ISSUED = "token.issued"
    TOKEN_DENIED = "token.denied"
    CONNECT_ACCEPTED = "connect.accepted"
    CONNECT_DENIED = "connect.denied"
    SUBSCRIBE_ACCEPTED = "subscribe.accepted"
    SUBSCRIBE_DENIED = "subscribe.denied"
    CONNECTION_REFRESHED = "connection.refreshed"
    CONNECTION_CHANNELS = "connection.channels"
    CONNECTION_CLOSED = "connection.closed"
    SESSION_REVOKED = "session.revoked"
    REQUEST_DENIED = "request.denied"
    PUBLISH_DENIED = "publish.denied"
    PUBLISH_SUMMARY = "publish.summary"
    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    LOGOUT = "logout"
    PROXY_DENIED = "proxy.denied"
    SESSION_REFRESHED = "session.refreshed"
    SESSION_REFRESH_DENIED = "session.refresh_denied"
    KEY_ROTATED = "key.rotated"
    RELOAD_SUCCEEDED = "reload.succeeded"
    RELOAD_FAILED = "reload.failed"
    OPERATOR_ACTION = "operator.action"
    DENIALS_AGGREGATED = "denials.aggregated"
    SUBSCRIPTIONS_AGGREGATED = "subscriptions.aggregated"
    AUDIT_READ = "audit.read"
    AUDIT_CHECKPOINT = "audit.checkpoint"
    AUDIT_GAP = "audit.gap"


ACTION_EXPLANATIONS: dict[Action, str] = {
    Action.TOKEN_ISSUED: (
        "A scoped token was issued. The record has the requested and the granted channels, and why others were refused."
    ),
    Action.TOKEN_DENIED: "A request for a scoped token was refused.",
    Action.CONNECT_ACCEPTED: (
        "A connection was accepted and its token used up. The record has the channels that it subscribed to first."
    ),
    Action.CONNECT_DENIED: "A connection was refused, or the token in its first frame.",
    Action.SUBSCRIBE_ACCEPTED: "A connection subscribed to further channels within its scope.",
    Action.SUBSCRIBE_DENIED: "A connection requested channels outside its scope, or too many.",
    Action.CONNECTION_REFRESHED: "A connection was extended with a new token. The token is used up.",
    Action.CONNECTION_CHANNELS: (
        "What an open connection was sent in ten minutes, by channel; or further channels of a connection that ended."
    ),
    Action.CONNECTION_CLOSED: (
        "A connection ended. The record says which side ended it, what was sent, and which grants were used."
    ),
    Action.SESSION_REVOKED: "A session, a user, a token or a key was revoked, and its open connections were ended.",
    Action.REQUEST_DENIED: "An HTTP request was refused before any route saw it: it is too large or not HTTP.",
    Action.PUBLISH_DENIED: "A publication was refused.",
    Action.PUBLISH_SUMMARY: (
        "A publisher published in this minute: a row for each channel, with the first and last number. "
        "What was above the limit of rows is summed up."
    ),
    Action.LOGIN_SUCCEEDED: "The backend accepted a log-in and the cookies were set.",
    Action.LOGIN_FAILED: "The backend refused a log-in. The name is recorded as a keyed hash only.",
    Action.LOGOUT: "A user logged out.",
    Action.PROXY_DENIED: (
        "A request through the API proxy or for the user (/api/auth/me) was refused, or the backend's answer to it. "
        "The path in the record is the prefix of its route."
    ),
    Action.SESSION_REFRESHED: "A session got new tokens: from the backend, or those of a request just before.",
    Action.SESSION_REFRESH_DENIED: "A refresh cookie was refused for good, and the cookies were cleared; "
    "or the request came from another site.",
    Action.KEY_ROTATED: "A running relay signs with another key, accepts a new one, or refuses one from now on.",
    Action.RELOAD_SUCCEEDED: (
        "A running relay read its settings again (SIGHUP). The record names the changed settings, and no values."
    ),
    Action.RELOAD_FAILED: (
        "A running relay was told to read its settings again and could not use them. It names the wrong settings."
    ),
    Action.OPERATOR_ACTION: "An operator called the internal listener. A record with a reason is a refused call.",
    Action.DENIALS_AGGREGATED: (
        "Denials above the budget of a user or an address, counted by action and reason for one minute."
    ),
    Action.SUBSCRIPTIONS_AGGREGATED: (
        "Accepted subscriptions above the budget of a session or an address, counted for one minute."
    ),
    Action.AUDIT_READ: "An operator read the audit log through the relay.",
    Action.AUDIT_CHECKPOINT: (
        "The position of the log, signed. Without the audit key, nobody can rewrite the records before it."
    ),
    Action.AUDIT_GAP: "Events could not be recorded. The record counts them by action.",
}
"""What each action means, for readers of the audit log."""

_CATEGORIES: dict[Action, tuple[str, str]] = {
    Action.TOKEN_ISSUED: ("authentication", "start"),
    Action.TOKEN_DENIED: ("authentication", "denied"),
    Action.CONNECT_ACCEPTED: ("network", "allowed"),
    Action.CONNECT_DENIED: ("network", "denied"),
    Action.SUBSCRIBE_ACCEPTED: ("network", "access"),
    Action.SUBSCRIBE_DENIED: ("network", "denied"),
    Action.CONNECTION_REFRESHED: ("network", "allowed"),
    Action.CONNECTION_CHANNELS: ("network", "info"),
    Action.CONNECTION_CLOSED: ("network", "end"),
    Action.SESSION_REVOKED: ("session", "end"),
    Action.REQUEST_DENIED: ("api", "denied"),
    Action.PUBLISH_DENIED: ("api", "denied"),
    Action.PUBLISH_SUMMARY: ("api", "info"),
    Action.LOGIN_SUCCEEDED: ("authentication", "start"),
    Action.LOGIN_FAILED: ("authentication", "denied"),
    Action.SESSION_REFRESHED: ("authentication", "info"),
    Action.SESSION_REFRESH_DENIED: ("authentication", "denied"),
    Action.LOGOUT: ("session", "end"),
    Action.PROXY_DENIED: ("api", "denied"),
    Action.KEY_ROTATED: ("configuration", "change"),
    Action.RELOAD_SUCCEEDED: ("configuration", "change"),
    Action.RELOAD_FAILED: ("configuration", "error"),
    Action.OPERATOR_ACTION: ("api", "access"),
    Action.DENIALS_AGGREGATED: ("intrusion_detection", "denied"),
    Action.SUBSCRIPTIONS_AGGREGATED: ("network", "access"),
    Action.AUDIT_READ: ("api", "access"),
    Action.AUDIT_CHECKPOINT: ("configuration", "info"),
    Action.AUDIT_GAP: ("configuration", "error"),
}

SUBSCRIBE_ACTIONS = frozenset({Action.CONNECT_ACCEPTED, Action.SUBSCRIBE_ACCEPTED})
"""Actions whose records have the channels that a connection subscribed to."""

LOG_ACTIONS = frozenset({Action.AUDIT_CHECKPOINT, Action.AUDIT_GAP})
"""Actions that the log records about itself. Observers do not get them, so metrics do not count them."""

_DENIALS = frozenset(
    {
        Action.TOKEN_DENIED,
        Action.CONNECT_DENIED,
        Action.SUBSCRIBE_DENIED,
        Action.REQUEST_DENIED,
        Action.PUBLISH_DENIED,
        Action.LOGIN_FAILED,
        Action.SESSION_REFRESH_DENIED,
        Action.PROXY_DENIED,
    }
)

_FAILURES = frozenset({Action.DENIALS_AGGREGATED, Action.AUDIT_GAP, Action.RELOAD_FAILED})


class Client(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The client as the network shows it. `peer` is the other end of the socket. `address` differs behind a proxy."""

    address: str = ""
    peer: str = ""
    user_agent: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event, without a time, an id or a place in the chain.

    `relay` has the project's own fields, nested as they appear under `relay` in the record: `session.ref`,
    `token.{jti,kid,aud,scope,channels,iat,exp,transport}`, `connection.{id,...}`, `channels`, `publisher.id`,
    `anomalies`. `endpoint` is a name from the settings. `asker` is the claim of the event's token. It is compared
    with `client` and not recorded.

    Every identity is verified: a signature or a key proves it. The one exception is `relay.claimed`, which has what a
    refused credential says about itself (`user`, `jti`, `kid`, `publisher`, `operator`). Nothing proves that.

    A struct is made in an eighth of the time of a frozen dataclass (0.2 µs instead of 1.7). The garbage collector
    need not visit it (`gc=False`), because it is in no reference cycle, and many of them wait for the log's thread.
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
    more: Callable[[], Mapping[str, Any]] | None = None
    """Makes further fields of `relay` when the record is written: large ones, of events that wait by the thousand."""


def clip(value: Any, *, depth: int = MAX_DEPTH) -> Any:
    """Return `value` with strings, lists and levels cut to the sizes above, as values of strict JSON."""
    kind = type(value)
    if kind is str:
        return _clip_text(value)
    if kind is int or kind is bool or value is None:
        return value
    # Exact types are tested first: a test for an abstract type costs a microsecond.
    if kind is dict or isinstance(value, Mapping):
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
    # Surrogates can't be written as UTF-8. A lone one in a header would otherwise lose the whole record.
    text = text[: MAX_TEXT + 1].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def is_denial(event: Event) -> bool:
    """Tell whether a caller was refused something. Anybody can cause such events, as often as they like."""
    # All calls of operators have one action, so that one search of the log finds both the allowed and the refused. So
    # have all log-outs, of which one with a reason has ended no session.
    return event.action in _DENIALS or (
        event.action in (Action.OPERATOR_ACTION, Action.LOGOUT) and event.reason is not None
    )


def outcome_of(event: Event) -> str:
    """Return the event's `event.outcome`: `success` or `failure`."""
    return "failure" if is_denial(event) or event.action in _FAILURES else "success"


def to_labels(event: Event) -> dict[str, str]:
    """Return the labels for metrics: `action`, `outcome`, `reason` and `endpoint`. A missing one is "".

    The values come from this package or the settings, so nobody outside can create a new time series.
    """
    return {
        "action": event.action.value,
        "outcome": outcome_of(event),
        "reason": event.reason.value if event.reason is not None else "",
        "endpoint": event.endpoint,
    }


def to_line(event: Event) -> dict[str, object]:
    """Return the event as the fields of one line of the process's own log, without the empty ones."""
    token, connection = event.relay.get("token", {}), event.relay.get("connection", {})
    line = to_labels(event) | {
        "user": event.user,
        "jti": token.get("jti", ""),
        "connection": connection.get("id", ""),
    }
    return {name: clip(value) for name, value in line.items() if value}


def to_record(event: Event, *, timestamp: str, event_id: str, node: str) -> dict[str, Any]:
    """Return `event` as a record of the audit log, without the chain's fields and not cut to size (see `clip`).

    `timestamp` is ISO 8601 in UTC. `event_id` is unique. `node` is the name of this relay process.
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
    if event.more is not None:
        record["relay"].update(event.more())
    return record
