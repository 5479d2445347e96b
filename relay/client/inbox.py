"""What came of a subscription so far, and what its caller gets to hear of it, in which order.

A frame can make several events (a value, and its channel is live again) or none (a repeat). They wait here, a
handful at most, because a new frame is read only when they are gone. A value always stands first in the queue:
`positions` moves when it is put there, and so never names what was not handed out.

Pure but for the queue: frames and the time go in, events come out, and asks where something must be resumed.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from relay.client.asks import Ask, asks_for
from relay.client.events import Event, Gap
from relay.client.frames import ServerFrame, Snapshot, Status, Subscribed, Update
from relay.client.freshness import Freshness, ServerClock
from relay.client.positions import Positions, Verdict
from relay.client.receipts import Position
from relay.client.wishes import Wishes


class Inbox:
    """The memory of one subscriber, over all its connections. `now` is any steady clock, in seconds."""

    def __init__(self, wishes: Wishes, since: Mapping[str, Position] | None) -> None:
        self._wishes = wishes
        self._freshness = Freshness()
        self._events: deque[Event] = deque()
        self._behind_gap: Snapshot | Update | None = None
        self.positions = Positions(since)
        self.clock = ServerClock()

    def next(self, now: float) -> Event | None:
        """Return the next event, if there is one."""
        if not self._events and self._behind_gap is not None:
            value, self._behind_gap = self._behind_gap, None
            self.value(value, now)
        return self._events.popleft() if self._events else None

    def put(self, *events: Event | None) -> None:
        """Queue events that need no more thought; None is none."""
        self._events += [event for event in events if event is not None]

    def resume(self, wanted: Mapping[str, int], *, again: bool, flowing: Collection[str] = ()) -> list[Ask]:
        """Return the frames that subscribe to `wanted`, as `asks_for` does; channels that are `flowing` go on.

        The channels that they resume are held until the relay has answered.
        """
        at = {name: position for name, position in self.positions.resumable().items() if name not in flowing}
        asks = asks_for(wanted, at, again=again)
        for ask in asks:
            self.positions.hold(ask.since)
        return asks

    def covered(self) -> set[str]:
        """Return the stream channels that are wished for now."""
        return {channel for channel in self.positions.resumable() if self._wishes.covers(channel)}

    def heard(self, frame: ServerFrame, now: float) -> list[Status]:
        """Take the sign of life in a frame; returns the channels that are live again for it."""
        self.clock.read(frame, now)
        return self._freshness.heard(self.clock.ms(now))

    def value(self, value: Snapshot | Update, now: float) -> list[Ask]:
        """Take a value. What is returned must be sent: something before it is missing."""
        verdict = self.positions.take(value)
        if verdict is Verdict.JUMP:
            if asks := self.resume(self._wishes.covering(value.channel), again=True):
                return asks
            verdict = self.positions.take(value)  # nobody wants it by name: the token's own subscription
        if isinstance(verdict, Gap):
            self._events.append(verdict)
            self._behind_gap = value
        elif verdict is not Verdict.HELD:
            self.put(value if verdict is Verdict.NEW else None)
            self.put(self._freshness.valued(value, now_ms=self.clock.ms(now)))
        return []

    def status(self, frame: Status, now: float) -> None:
        """Take the relay's word for a channel."""
        self.put(self._freshness.said(frame, now_ms=self.clock.ms(now)))

    def subscribed(self, frame: Subscribed, ask: Ask | None, now: float) -> None:
        """Take an ack; `ask` is what it answers, None where the URL or the token asked."""
        acknowledged = frame.channels
        resumed = {} if ask is None else ask.since
        gaps = self.positions.acknowledge(frame, resumed)
        if resumed:  # of channels that only a pattern wants, the caller never asked for an answer
            wanted = self._wishes.names
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
        """Nothing was heard since then, for longer than it should be: every value is stale."""
        self.put(*self._freshness.silent(self.clock.ms(since)))

    def lost(self, since: float) -> list[Status]:
        """The connection is gone, and gave its last sign of life then; returns what is stale for it."""
        self.positions.release()
        return self._freshness.lost(self.clock.ms(since))

    def forget(self, names: Iterable[str]) -> None:
        """Forget what only these names wanted, which are wished no more."""
        gone = Wishes.of(names)
        for memory in (self.positions, self._freshness):
            memory.forget(lambda channel: gone.covers(channel) and not self._wishes.covers(channel))
