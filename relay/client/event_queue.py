"""The events that a subscriber hands out, in their order, made from the relay's frames.

A frame can make several events (a value, and its channel is live again) or none (a repeated value). They wait here, a
handful at most, because the next frame is read only when the queue is empty. A value is always the first in the queue:
`positions` moves when the value is queued, and must never name a value that was not handed out.

No input or output happens here: frames and the time go in; events, and requests to resume channels, come out.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from relay.client.events import Event, Gap
from relay.client.frames import ServerFrame, Snapshot, Status, Subscribed, Update
from relay.client.freshness import Freshness, ServerClock
from relay.client.positions import Arrival, Positions
from relay.client.receipts import Position
from relay.client.subscriptions import DesiredSubscriptions, SubscriptionRequest, subscription_requests


class EventQueue:
    """One subscriber's events and state, over all its connections. `now` is any steady clock, in seconds."""

    def __init__(self, desired: DesiredSubscriptions, since: Mapping[str, Position] | None) -> None:
        self._desired = desired
        self._freshness = Freshness()
        self._events: deque[Event] = deque()
        self._after_gap: Snapshot | Update | None = None
        self.positions = Positions(since)
        self.clock = ServerClock()

    def next(self, now: float) -> Event | None:
        """Return the next event, or None if there is none."""
        if not self._events and self._after_gap is not None:
            value, self._after_gap = self._after_gap, None
            self.value(value, now)
        return self._events.popleft() if self._events else None

    def put(self, *events: Event | None) -> None:
        """Queue events as they are; None is ignored."""
        self._events += [event for event in events if event is not None]

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
            self._events.append(arrival)
            self._after_gap = value
        elif arrival is not Arrival.HELD:
            self.put(value if arrival is Arrival.NEW else None)
            self.put(self._freshness.valued(value, now_ms=self.clock.ms(now)))
        return []

    def status(self, frame: Status, now: float) -> None:
        """Take over the state that the relay reports for a channel."""
        self.put(self._freshness.said(frame, now_ms=self.clock.ms(now)))

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
            self._events.append(frame)
        self.put(*gaps)
        for item in acknowledged:
            if item.epoch is not None:
                is_current = self.positions.has(item.channel, item.epoch, item.seq or 0)
                self.put(self._freshness.acknowledged(item, is_current=is_current, now_ms=self.clock.ms(now)))

    def silent(self, since: float) -> None:
        """Queue that every value is stale: no frame came since then, for longer than the protocol allows."""
        self.put(*self._freshness.silent(self.clock.ms(since)))

    def lost(self, since: float) -> list[Status]:
        """Note that the connection is gone, its last frame came then; returns the channels that are stale for it."""
        self.positions.release()
        return self._freshness.lost(self.clock.ms(since))

    def forget(self, names: Iterable[str]) -> None:
        """Forget the channels that only these names covered, which are desired no longer."""
        gone = DesiredSubscriptions.of(names)
        for memory in (self.positions, self._freshness):
            memory.forget(lambda channel: gone.covers(channel) and not self._desired.covers(channel))
