"""Who published on a channel, from the summaries of each minute: the rows of the view `publications`, added up."""

from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec

from relay.audit.index.database import Index
from relay.audit.index.views import published_rows
from relay.audit.query.records import iso
from relay.core.patterns import covers, is_wildcard


class Published(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    count: int
    first: int
    last: int
    dropped: int
    alive: int


def published_on(
    index: Index, channel: str, *, span: tuple[str, str | None] | None = None
) -> list[Published]:
    """Return who published on a channel, or on the channels of a pattern, in the minutes of a span of time.

    Publications without a row are at the end. Without `span`, it is that of the index.
    """
    begin, end = index.span if span is None else span
    rows = f"({published_rows(_summaries(begin, end))})"
    names: Collection[str] = [channel]
    if is_wildcard(channel):
        found = index.rows(f"SELECT DISTINCT channel FROM {rows}")
        names = [name for (name,) in found if name and covers(channel, name)]
    return [
        Published(
            publisher=publisher,
            address=address,
            channel=name,
            epoch=epoch,
            since=since,
            until=until,
            count=count,
            first=first,
            last=last,
            dropped=dropped,
            alive=alive,
        )
        for publisher, address, name, epoch, since, until, count, first, last, dropped, alive in index.rows(
            f"""
            SELECT publisher, address, channel, epoch, arg_min(since, place), arg_max("until", place),
                sum("count")::BIGINT, coalesce(arg_min(first, place) FILTER (first != 0), 0), max(last),
                sum(dropped)::BIGINT, sum(alive)::BIGINT
            FROM {rows} WHERE channel = '' OR list_contains(?, channel)
            GROUP BY publisher, address, channel, epoch ORDER BY channel = '', min(place)""",
            [[*names, ""]],
        )
    ]


def minutes_of(index: Index, channel: str) -> list[tuple[str, int, int, str, str]]:
    """Return the rows of a channel: epoch, first and last number, and between which times they were published."""
    return index.rows(
        f"""
        SELECT epoch, first, last, since, "until" FROM ({published_rows("rare_lines")})
        WHERE channel = ? AND last > 0 ORDER BY place""",
        [channel],
    )


def _summaries(begin: str, end: str | None) -> str:
    """Return the lines of the summaries of a span: those that were written in it, and that of its last minute."""
    if end is None:
        return f"(SELECT * FROM rare_lines WHERE moment >= '{begin}')"
    written = iso(datetime.fromisoformat(end) + timedelta(minutes=1))
    return (
        f"(SELECT * FROM rare_lines WHERE moment >= '{begin}' AND moment <= '{written}' AND since <= '{end}')"
    )
