"""Who published on a channel, from the summaries of each minute."""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.audit.query.records import Publications, Record
from relay.core.events import Action
from relay.core.patterns import covers


@dataclass(slots=True, kw_only=True)
class Published:
    """What a publisher published on a channel from one address, between `since` and `until`.

    `first` and `last` are the numbers in the epoch. Without a channel, these are publications that have no row: they
    may have been on any channel.
    """

    publisher: str
    address: str
    channel: str
    epoch: str
    since: str
    until: str
    count: int = 0
    first: int = 0
    last: int = 0
    dropped: int = 0
    alive: int = 0


def published_on(
    records: Iterable[Record], channel: str, *, span: tuple[str, str | None] = ("", None)
) -> list[Published]:
    """Return who published on a channel, or on the channels of a pattern, in the minutes of a span of time.

    Publications without a row are at the end. The records must reach a minute beyond the span.
    """
    begin, end = span
    found: dict[tuple[str, ...], Published] = {}
    for record in records:
        own = record.relay
        is_in_span = record.at >= begin and (end is None or own.since <= end)
        if record.event.action != Action.PUBLISH_SUMMARY or not is_in_span:
            continue
        rows = [row for row in own.publications if covers(channel, row.channel)]
        for row in rows if own.others == Publications() else (*rows, own.others):
            key = (own.publisher.id, record.client.ip, row.channel, row.epoch)
            if key not in found:
                found[key] = _begun(*key, since=own.since)
            _add(found[key], row, until=record.at)
    return sorted(found.values(), key=lambda one: not one.channel)


def _begun(publisher: str, address: str, channel: str, epoch: str, *, since: str) -> Published:
    return Published(
        publisher=publisher, address=address, channel=channel, epoch=epoch, since=since, until=since
    )


def _add(total: Published, row: Publications, *, until: str) -> None:
    total.until = until
    total.first = total.first or row.first
    total.last = max(total.last, row.last)
    total.count += row.count
    total.dropped += row.dropped
    total.alive += row.alive
