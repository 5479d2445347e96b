"""The events that a subscriber hands out, in their order, made from the relay's frames.

Frames are read all the time, also while the caller is busy with an event. So events wait here, and what waits is
bounded in two ways:

- A price must not grow old here. If the values of a `latest` channel have waited longer than `FRESH_S`, or if too many
  wait, only the newest of them is kept. A caller that is fast enough gets every value.
- Each message of a `stream` channel counts, and keeps its place. If too many wait, `has_room` is False and the
  subscriber stops reading. The relay then closes the connection of a caller that stays too slow (4008), and the next
  connection resumes, or reports a `Gap`.

No input or output happens here: frames and the time go in; events, and requests to resume channels, come out.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from relay.client.events import Event, Gap
from relay.client.frames import ServerFrame, Snapshot, Status, Subscribed, Update
from relay.client.freshness import Freshness, ServerClock
from relay.client.positions import Arrival, Positions
from relay.client.receipts import Position
from relay.client.subscriptions import (
    DesiredSubscriptions,
    EpochSeq,
    SubscriptionRequest,
    subscription_requests,
)

FRESH_S = 0.5
"""Longest wait of a `latest` value before a newer one replaces it: half of the second that a price may be old."""

MAX_EVENTS = 1000
MAX_BYTES = 4 << 20
"""Bounds of what waits, for values of `latest` channels and for all other events: 0.1 s of 10,000 values a second."""

MAX_STATUSES = 16
"""Bound of a channel's waiting `Status` events. Only the last one counts."""


@dataclass(slots=True)
class _Waiting:
    """One event in the queue; None if a newer one replaced it. `at`: when it was queued. `size`: bytes of its data.

    `position` is that of a message of a `stream` channel.
    """

    event: Event | None
    at: float
    size: int = 0
    position: EpochSeq | None = None


class _Load:
    """The number and the bytes of some waiting events."""

    def __init__(self) -> None:
        self._events = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return self._events >= MAX_EVENTS or self._bytes >= MAX_BYTES

    def add(self, waiting: _Waiting) -> None:
        self._events += 1
        self._bytes += waiting.size

    def remove(self, waiting: _Waiting) -> None:
        self._events -= 1
        self._bytes -= waiting.size


class EventQueue:
    """One subscriber's events and state, over all its connections. `now` is any steady clock, in seconds."""

    def __init__(self, desired: DesiredSubscriptions, since: Mapping[str, Position] | None) -> None:
        self._desired = desired
        self._freshness = Freshness()
        self._waiting: deque[_Waiting] = deque()
        self._replaced = 0
        self._replaceable: dict[str, deque[_Waiting]] = {}  # the waiting values of each `latest` channel
        self._statuses: dict[str, deque[_Waiting]] = {}  # the waiting ones of each channel
        self._values = _Load()
        self._others = _Load()
        self.positions = Positions(since)
        self.handed_out = self.positions.resumable()
        """The position of the last message of each `stream` channel that the caller has."""
        self.clock = ServerClock()

    @property
    def has_room(self) -> bool:
        """Whether another frame may be read. Values of `latest` channels always have room."""
        return not self._others.is_full

    def next(self, now: float) -> Event | None:
        """Return the next event, or None if there is none."""
        while self._waiting:
            waiting = self._waiting.popleft()
            event = waiting.event
            if event is None:
                self._replaced -= 1
                continue
            self._remove(waiting, event, now)
            return waiting.event
        return None

    def _remove(self, waiting: _Waiting, event: Event, now: float) -> None:
        """Count an event as handed out. An old value of a `latest` channel is replaced by its newest before."""
        match event:
            case Snapshot() | Update() if self._is_replaceable(waiting, event.channel):
                values = self._replaceable[event.channel]
                if now - waiting.at > FRESH_S:
                    self._conflate(values)
                self._values.remove(values.popleft())
                if not values:
                    del self._replaceable[event.channel]
                return
            case Status():
                statuses = self._statuses[event.channel]
                statuses.popleft()
                if not statuses:
                    del self._statuses[event.channel]
                return
            case Snapshot() | Update() if waiting.position is not None:
                self.handed_out[event.channel] = waiting.position
            case Gap():
                self.handed_out.pop(event.channel, None)
        self._others.remove(waiting)

    def _is_replaceable(self, waiting: _Waiting, channel: str) -> bool:
        values = self._replaceable.get(channel)
        return values is not None and values[0] is waiting

    def put(self, *events: Event | None, now: float) -> None:
        """Queue events as they are; None is ignored. A `Status` replaces those of its channel that wait too long."""
        for event in events:
            if event is None:
                continue
            waiting = _Waiting(event, now)
            self._waiting.append(waiting)
            if not isinstance(event, Status):
                self._others.add(waiting)
                continue
            statuses = self._statuses.setdefault(event.channel, deque())
            if statuses and (now - statuses[0].at > FRESH_S or len(statuses) >= MAX_STATUSES):
                waiting.at = statuses[0].at
                while statuses:
                    self._replace(statuses.popleft())
            statuses.append(waiting)

    def _put_value(self, value: Snapshot | Update, now: float) -> None:
        """Queue a new value."""
        waiting = _Waiting(value, now, size=len(bytes(value.raw)))
        if self.positions.is_stream(value.channel):
            waiting.position = self.positions.at(value.channel)
            self._waiting.append(waiting)
            self._others.add(waiting)
            return
        values = self._replaceable.setdefault(value.channel, deque())
        must_conflate = bool(values) and (now - values[0].at > FRESH_S or self._values.is_full)
        values.append(waiting)
        self._waiting.append(waiting)
        self._values.add(waiting)
        if must_conflate:
            self._conflate(values)

    def _conflate(self, values: deque[_Waiting]) -> None:
        """Keep the newest of a channel's waiting values, at the place of the first one."""
        first = values[0]
        while len(values) > 1:
            waiting = values[1]
            assert isinstance(first.event, Snapshot | Update)
            assert isinstance(waiting.event, Snapshot | Update)
            self._values.remove(first)
            self._values.remove(waiting)
            first.event, first.size = _newer(first.event, waiting.event), waiting.size
            self._values.add(first)
            self._replace(waiting)
            del values[1]

    def _replace(self, waiting: _Waiting) -> None:
        """Let a waiting event be skipped. The places of skipped events are given back when they are many."""
        waiting.event = None
        self._replaced += 1
        if self._replaced > MAX_EVENTS and self._replaced > len(self._waiting) // 2:
            self._waiting = deque(waiting for waiting in self._waiting if waiting.event is not None)
            self._replaced = 0

    def resume(
        self, wanted: Mapping[str, int], *, again: bool, flowing: Collection[str] = ()
    ) -> list[SubscriptionRequest]:
        """Return the requests that subscribe to `wanted`, as `subscription_requests` does.

        Channels that are `flowing` are not resumed. Those that are resumed are held until the relay has answered.
        """
        at = {name: position for name, position in self.positions.resumable().items() if name not in flowing}
        requests = subscription_requests(wanted, at, again=again)
        for request in requests:
            self.positions.hold(request.since)
        return requests

    def covered(self) -> set[str]:
        """Return the stream channels that are desired now."""
        return {channel for channel in self.positions.resumable() if self._desired.covers(channel)}

    def heard(self, frame: ServerFrame, now: float) -> list[Status]:
        """Note that the link is alive, and the time in a frame; returns the channels that are live again for it."""
        self.clock.read(frame, now)
        return self._freshness.heard(self.clock.ms(now))

    def value(self, value: Snapshot | Update, now: float) -> list[SubscriptionRequest]:
        """Queue a value if it is new. The caller must send what is returned: a message before it is missing."""
        arrival = self.positions.classify(value)
        if arrival is Arrival.JUMP:
            if requests := self.resume(self._desired.covering(value.channel), again=True):
                return requests
            # no name covers it: the token itself subscribed to it, so it can't be requested again
            arrival = self.positions.classify(value)
        if isinstance(arrival, Gap):
            self.put(arrival, now=now)
            arrival = self.positions.classify(value)
        if arrival is not Arrival.HELD:
            if arrival is Arrival.NEW:
                self._put_value(value, now)
            self.put(self._freshness.valued(value, now_ms=self.clock.ms(now)), now=now)
        return []

    def status(self, frame: Status, now: float) -> None:
        """Take over the state that the relay reports for a channel."""
        self.put(self._freshness.said(frame, now_ms=self.clock.ms(now)), now=now)

    def subscribed(self, frame: Subscribed, request: SubscriptionRequest | None, now: float) -> None:
        """Take over an ack. `request` is what it answers; None for subscriptions by the URL or the token."""
        acknowledged = frame.channels
        resumed = {} if request is None else request.since
        gaps = self.positions.acknowledge(frame, resumed)
        if resumed:  # the caller never asked for the channels that only a pattern covers
            wanted = self._desired.names
            frame = Subscribed(
                id=frame.id,
                channels=tuple(item for item in frame.channels if item.channel in wanted),
                rejected=tuple(item for item in frame.rejected if item.channel in wanted),
            )
        if frame.channels or frame.rejected or not resumed:
            self.put(frame, now=now)
        self.put(*gaps, now=now)
        for item in acknowledged:
            if item.epoch is not None:
                is_current = self.positions.has(item.channel, item.epoch, item.seq or 0)
                told = self._freshness.acknowledged(item, is_current=is_current, now_ms=self.clock.ms(now))
                self.put(told, now=now)

    def silent(self, since: float, now: float) -> None:
        """Queue that every value is stale: no frame came since then, for longer than the protocol allows."""
        self.put(*self._freshness.silent(self.clock.ms(since)), now=now)

    def lost(self, since: float) -> list[Status]:
        """Note that the connection is gone, its last frame came then; returns the channels that are stale for it."""
        self.positions.release()
        return self._freshness.lost(self.clock.ms(since))

    def forget(self, names: Iterable[str]) -> None:
        """Forget the channels that only these names covered, which are desired no longer."""
        gone = DesiredSubscriptions.of(names)

        def is_gone(channel: str) -> bool:
            return gone.covers(channel) and not self._desired.covers(channel)

        self.positions.forget(is_gone)
        self._freshness.forget(is_gone)
        self.handed_out = {name: at for name, at in self.handed_out.items() if not is_gone(name)}


def _newer(older: Snapshot | Update, newer: Snapshot | Update) -> Snapshot | Update:
    """Return the newer value. It is a snapshot if it replaces one, because an update names no epoch."""
    if isinstance(older, Update) or isinstance(newer, Snapshot):
        return newer
    return Snapshot(
        channel=newer.channel,
        epoch=older.epoch,
        seq=newer.seq,
        ts=newer.ts,
        raw=newer.raw,
        source_ts=newer.source_ts,
    )
