"""Who published on which channel: counted for a minute, and then recorded in the audit log.

A record for each publication would be nearly all of the log. The records of a minute have a row for each publisher,
address, channel and epoch, with the numbers of its first and last publication.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from relay.audit.base import Auditor
from relay.broker.base import Position
from relay.core.events import MAX_LIST, Action, Client, Event

PERIOD_S = 60.0
"""Seconds of a summary. It ends with a minute of the clock, so that those of several relays fit together."""

_Key = tuple[str, str, str, str]
"""Publisher, address, channel, epoch."""


class _Row:
    """What one publisher published on one channel."""

    __slots__ = ("alive", "bytes", "count", "dropped", "first", "last")

    def __init__(self) -> None:
        self.first = self.last = self.count = self.bytes = self.dropped = self.alive = 0

    def record(self) -> dict[str, int]:
        """Return the row's audit fields, without those that are zero."""
        return {name: value for name in _Row.__slots__ if (value := getattr(self, name))}


class _Sum(_Row):
    """Several rows in one. Numbers of several channels have no order."""

    __slots__ = ()

    def record(self) -> dict[str, int]:
        """Return the sum's audit fields."""
        return {name: count for name, count in super().record().items() if name not in ("first", "last")}


class PublicationSummary:
    """Counts the publications of one minute; `end_minute` records them.

    `each`: the rows of one publisher in a minute. What has no row is summed up for its publisher and address.
    """

    def __init__(self, auditor: Auditor, *, each: int, clock: Callable[[], float] = time.time) -> None:
        self.each = each
        self._auditor = auditor
        self._clock = clock
        self._rows: dict[_Key, _Row] = {}
        self._row_counts: Counter[str] = Counter()
        self._others: dict[tuple[str, str], _Row] = {}
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def published(self, publisher: str, address: str, channel: str, position: Position, size: int) -> None:
        """Count a publication, which got this position."""
        row = self._row(publisher, address, channel, position.epoch)
        row.first = row.first or position.seq
        row.last = position.seq
        row.count += 1
        row.bytes += size

    def dropped(self, publisher: str, address: str, channel: str, position: Position) -> None:
        """Count a publication that was dropped as stale or repeated."""
        self._row(publisher, address, channel, position.epoch).dropped += 1

    def alive(self, publisher: str, address: str, channel: str, position: Position) -> None:
        """Count a sign of life, which says that the value at this position still holds."""
        self._row(publisher, address, channel, position.epoch).alive += 1

    def end_minute(self) -> None:
        """Record what was counted. The next publication starts another minute."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows, others = self._rows, self._others
        self._rows, self._others, self._row_counts = {}, {}, Counter()
        by_source: dict[tuple[str, str], list[dict[str, Any]]] = {source: [] for source in others}
        for (publisher, address, channel, epoch), row in rows.items():
            by_source.setdefault((publisher, address), []).append(
                {"channel": channel, "epoch": epoch, **row.record()}
            )
        for source, found in by_source.items():
            for at in range(0, max(1, len(found)), MAX_LIST):
                rest = others.pop(source, None)
                self._note(*source, found[at : at + MAX_LIST], rest)

    def _note(self, publisher: str, address: str, rows: list[dict[str, Any]], rest: _Row | None) -> None:
        details: dict[str, Any] = {
            "publisher": {"id": publisher},
            "since": datetime.fromtimestamp(self._since, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "publications": rows,
        }
        if rest is not None:
            details["others"] = rest.record()
        self._auditor.note(
            Event(action=Action.PUBLISH_SUMMARY, client=Client(address=address), relay=details)
        )

    def _row(self, publisher: str, address: str, channel: str, epoch: str) -> _Row:
        key = (publisher, address, channel, epoch)
        row = self._rows.get(key)
        if row is None:
            if self._timer is None:
                self._begin_minute()
            if self._row_counts[publisher] >= self.each:
                return self._others.setdefault((publisher, address), _Sum())
            self._row_counts[publisher] += 1
            row = self._rows[key] = _Row()
        return row

    def _begin_minute(self) -> None:
        self._since = self._clock()
        with suppress(RuntimeError):  # without an event loop, the minute ends when the relay does
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(PERIOD_S - self._since % PERIOD_S, self.end_minute)
