"""What was asked and not granted: the channels of token requests and subscriptions that were refused, and why."""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.audit.query.records import Record
from relay.core.events import Action


@dataclass(slots=True, kw_only=True)
class Refused:
    """A channel that a user asked for and did not get, how often, and when first and last.

    Without a channel: the whole request was refused, and named none; or its record does not name all of them.
    """

    user: str
    address: str
    endpoint: str
    channel: str
    asked_for: str
    reason: str
    count: int = 0
    first: str = ""
    last: str = ""


def refused_grants(records: Iterable[Record]) -> list[Refused]:
    """Return what was asked and not granted, the most frequent first.

    Refusals beyond the budget are only counted in the log: they have no user, and no channel.
    """
    found: dict[tuple[str, ...], Refused] = {}
    for record in records:
        own, event = record.relay, record.event
        channels: list[tuple[str, str, int]] = []
        user, address, asked_for = record.user.id, "", event.action
        match event.action:
            case Action.TOKEN_ISSUED:
                asked_for = "token"
                channels = [(one.channel, one.reason, 1) for one in own.rejected]
            case Action.TOKEN_DENIED:
                asked_for = "token"
                channels = [(name, event.reason, 1) for name in own.asked.channels or ("",)]
            case Action.SUBSCRIBE_DENIED:
                asked_for = "subscription"
                channels = [(name, event.reason, 1) for name in own.channels]
                if own.count > len(own.channels):
                    channels.append(("", event.reason, own.count - len(own.channels)))
            case Action.DENIALS_AGGREGATED:
                kinds = {Action.TOKEN_DENIED: "token", Action.SUBSCRIBE_DENIED: "subscription"}
                for action, kind in kinds.items():
                    for reason, count in own.denied.get(action, {}).items():
                        _add(found, record, ("", "", "", "", kind, reason), count)
        if not user:
            address = record.client.ip
        for channel, reason, count in channels:
            _add(found, record, (user, address, own.endpoint, channel, asked_for, reason), count)
    return sorted(found.values(), key=lambda one: -one.count)


def _add(found: dict[tuple[str, ...], Refused], record: Record, key: tuple[str, ...], count: int) -> None:
    one = found.get(key)
    if one is None:
        user, address, endpoint, channel, asked_for, reason = key
        one = found[key] = Refused(
            user=user, address=address, endpoint=endpoint, channel=channel, asked_for=asked_for, reason=reason
        )
        one.first = record.at
    one.last = record.at
    one.count += count
