"""A record in plain words, for `relay audit why` and for the operators' page."""

from collections.abc import Mapping

from relay.audit.anomalies import ANOMALY_EXPLANATIONS, Anomaly
from relay.audit.query.records import Claimed, Record
from relay.core.closes import CloseCode
from relay.core.errors import EXPLANATIONS, Reason
from relay.core.events import ACTION_EXPLANATIONS, Action
from relay.core.quantities import counted

_SENTENCES = {action.value: text for action, text in ACTION_EXPLANATIONS.items()} | {
    Action.TOKEN_DENIED.value: "No token was given.",
    Action.CONNECTION_REFRESHED.value: "The connection continues with a new token.",
    Action.LOGIN_SUCCEEDED.value: "Logged in.",
    Action.LOGIN_FAILED.value: "A log-in was refused.",
    Action.LOGOUT.value: "Logged out.",
}
"""The sentences for records whose details add nothing."""

_CLOSES: Mapping[int | None, str] = {code.value: code.name.lower() for code in CloseCode}
"""The names of close codes."""
_NO_CLAIM = Claimed()
_LISTED = 8
"""Channels of a summary or a report that its sentence names."""


def explain(record: Record) -> str:
    """Return what a record says: what happened, why, and what its anomalies mean. It does not name the user."""
    sentences = [_what(record)]
    # the first sentence already says that the client closed its connection
    if record.event.reason and record.event.reason != Reason.CLIENT_CLOSED:
        sentences.append(explained(record.event.reason))
        if (detail := record.relay.detail) and detail != sentences[-1]:
            sentences.append(detail)
    if claimed := _claimed(record):
        sentences.append(claimed)
    sentences += [_anomaly(name) for name in record.relay.anomalies]
    return " ".join(sentences)


def _what(record: Record) -> str:
    """Return the sentence that says what happened."""
    own = record.relay
    match record.event.action:
        case Action.TOKEN_ISSUED:
            return _issued(record)
        case Action.CONNECT_ACCEPTED:
            first = f", subscribed to {_names(own.channels, own.count)}" if own.channels else ""
            way = f"The token was used up (as {own.token.transport})"
            return f"{way} and the connection to {own.endpoint} accepted{first}."
        case Action.CONNECT_DENIED:
            return f"A connection to {own.endpoint or 'the stream'} was refused."
        case Action.SUBSCRIBE_ACCEPTED:
            return f"Subscribed to {_names(own.channels, own.count)}."
        case Action.SUBSCRIBE_DENIED:
            return f"A subscription to {_names(own.channels, own.count)} was refused."
        case Action.CONNECTION_CLOSED:
            return _ending(record)
        case Action.CONNECTION_CHANNELS:
            return _sent(record)
        case Action.SESSION_REVOKED:
            return _revoked(record)
    return _elsewhere(record)


def _elsewhere(record: Record) -> str:
    """Say what happened in a record that is not about a connection."""
    own = record.relay
    match record.event.action:
        case Action.PUBLISH_DENIED | Action.PUBLISH_SUMMARY:
            return _publications(record)
        case Action.PROXY_DENIED:
            return f"A call through the proxy ({own.method} {record.url.path or 'of no route'}) was refused."
        case Action.OPERATOR_ACTION:
            return f"{_operator(record)} called {own.method} {record.url.path}."
        case Action.AUDIT_READ:
            sought = ", ".join(f"{name} {value}" for name, value in own.sought.items())
            return f"{_operator(record)} read the audit log{f': {sought}' if sought else ''}."
        case Action.RELOAD_SUCCEEDED:
            waits = f" {', '.join(own.needs_restart)} needs a restart." if own.needs_restart else ""
            return f"The settings were read again. Changed: {_names(own.changed, own.count) or 'nothing'}.{waits}"
        case Action.RELOAD_FAILED:
            wrong = f" Wrong: {', '.join(own.settings)}." if own.settings else ""
            return f"The settings were to be read again and could not be used.{wrong}"
        case Action.DENIALS_AGGREGATED:
            return f"{own.count} more refusals were counted and not recorded one by one."
        case Action.SUBSCRIPTIONS_AGGREGATED:
            return f"{own.count} more subscriptions were counted and not recorded one by one."
        case Action.AUDIT_GAP if own.lost:
            lost = ", ".join(f"{count} {action}" for action, count in own.lost.items())
            return f"Events could not be recorded: {lost}."
        case Action.AUDIT_GAP if own.cut:
            return (
                f"Another program cut {counted(own.cut, 'byte')} off the log while the relay was writing it."
            )
        case Action.AUDIT_GAP if own.unclean_end:
            return "The relay before this one ended without closing the log; its connections ended with it."
    return _SENTENCES.get(record.event.action, record.event.action)  # written by a newer relay


def _publications(record: Record) -> str:
    own = record.relay
    if record.event.action == Action.PUBLISH_DENIED:
        return f"{own.publisher.id or 'Somebody'} was refused {counted(own.count or 1, 'publication')}."
    rows = own.publications
    count = sum(row.count for row in rows) + own.others.count
    channels = tuple(row.channel for row in rows if row.count)
    on = f" on {_names(channels[:_LISTED], len(channels))}" if channels else ""
    return f"{own.publisher.id} published {counted(count, 'message')}{on}."


def _claimed(record: Record) -> str:
    """Return the sentence about what a refused credential says about itself."""
    claimed = record.relay.claimed
    if claimed == _NO_CLAIM:
        return ""
    found = (
        ("user", claimed.user),
        ("token", claimed.jti),
        ("key", claimed.kid),
        ("publisher", claimed.publisher),
        ("operator", claimed.operator),
    )
    named = ", ".join(f"{kind} {name}" for kind, name in found if name)
    return f"The credential claims {named}, which nothing proves."


def _issued(record: Record) -> str:
    own = record.relay
    asked = ", ".join(own.asked.channels) or "all that is granted"
    refused = "".join(f" Not {no.channel}: {explained(no.reason)}" for no in own.rejected)
    roles = f" as {', '.join(own.session.roles)}" if own.session.roles else ""
    granted = ", ".join(own.token.channels) or "the service"
    return f"A token for {own.endpoint}{roles}: requested {asked}, granted {granted}.{refused}"


def _ending(record: Record) -> str:
    connection, used = record.relay.connection, record.relay.connection.scopes
    lasted = "" if connection.duration_ms is None else f" after {connection.duration_ms / 1000:.1f} s"
    code = connection.close_code
    named = f" {_CLOSES[code]}" if code in _CLOSES else ""
    name = f" ({code}{named})" if code else ""
    unused = f" Granted and not used: {', '.join(used.unused)}." if used.unused else ""
    return (
        f"Ended by the {connection.initiator or 'relay'}{lasted}{name}, "
        f"{counted(connection.messages_out or 0, 'message')} sent.{unused}"
    )


def _sent(record: Record) -> str:
    own = record.relay
    channels = tuple(dict.fromkeys(row.channel for row in own.sent))  # a channel has a row for each epoch
    count = sum(row.count for row in own.sent) + own.others.count
    on = f" on {_names(channels[:_LISTED], len(channels))}" if channels else ""
    since = f" since {own.since}" if own.since else ""
    return f"The connection was sent {counted(count, 'message')}{on}{since}."


def _revoked(record: Record) -> str:
    own = record.relay
    what = {
        "user": "All sessions were",
        "token": "The token was",
        "key": f"All tokens of the key {own.token.kid} were",
    }.get(own.revoked, "The session was")
    by = f" by operator {own.operator.id}" if own.operator.id else ""
    return f"{what} cut off{by}; {counted(own.connections, 'connection')} closed."


def _operator(record: Record) -> str:
    operator = record.relay.operator.id
    return f"Operator {operator}" if operator else "Somebody without an operator's key"


def _names(channels: tuple[str, ...], count: int) -> str:
    more = count - len(channels)
    return ", ".join(channels) + (f" and {more} more" if more > 0 else "")


def explained(reason: str) -> str:
    """Return the sentence about a reason."""
    try:
        return EXPLANATIONS[Reason(reason)]
    except (ValueError, KeyError):
        return f"({reason})"  # written by a newer relay


def _anomaly(name: str) -> str:
    return ANOMALY_EXPLANATIONS[Anomaly(name)] if name in set(Anomaly) else f"({name})"
