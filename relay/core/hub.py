"""The hub: one tick in, the same bytes out to every subscriber, with as few writes as the kernel allows.

On loopback the `send` system call is most of a delivery's cost, so the design is about calling it less often:

- A tick is encoded once. Server frames are not masked, so the same bytes fit every socket.
- Publishing only appends to the channel's pending list. A flush takes what is pending on all channels and
  writes once to each subscriber, however many ticks and channels that is. While nothing is going on that is
  one tick, one write; what comes in while a flush runs makes up the next. There is no timer and no added delay.
- A flush is done in slices, so that handshakes, pings and publishes go on in between.
- A subscriber whose transport still holds bytes gets no more. Its channels are marked dirty, and when it has
  drained it gets each one's newest value: a slow reader sees few prices, and never an old one. This is the last
  moment at which that can be decided, and nothing is queued for anybody.

Joining without a gap or a repeat: a joiner is sent the channel's value at once and enters the shared flush
behind everything that this value already contains (`_Channel.joining`).

The hub is pure. It knows sinks, an `encode` for frames and a beat that somebody else counts; no socket, no
clock, no task. It is not thread-safe: all calls come from one thread.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from relay.core import messages
from relay.core.channels import covers, is_wildcard
from relay.core.publications import Publication

CATCH_UP_BYTES = 16_384
"""Newest values written at once to a subscriber that has drained: about what the kernel takes without queueing
(TCP_NOTSENT_LOWAT of the stream's listener), so that the values behind it stay changeable."""

BEATS_A_HEARTBEAT = 4
"""Beats of silence after which a heartbeat goes out. A client may hear nothing for 5/4 of its interval then,
and calls prices stale after 6/4."""


class Sink(Protocol):
    """One connection's outgoing side."""

    def write(self, data: bytes, /) -> None:
        """Hand over whole frames. Must not raise and must not call back into the hub."""
        ...

    def pending(self) -> int:
        """Return the bytes handed over that the kernel has not taken yet."""
        ...


class Subscriber:
    """One sink's place in the hub. Made by `Hub.join`; its counters may be read at any time."""

    __slots__ = (
        "beat",
        "bytes",
        "channels",
        "conflated",
        "dirty",
        "exact",
        "messages",
        "patterns",
        "pending",
        "write",
    )

    def __init__(self, sink: Sink, beat: int) -> None:
        # bound once: looking them up for each delivery costs a tenth of it
        self.write = sink.write
        self.pending = sink.pending
        self.beat = beat
        self.exact: set[str] = set()
        self.patterns: set[str] = set()
        # channel -> how many of the names above cover it
        self.channels: dict[_Channel, int] = {}
        # channel -> the generation that the subscriber last saw of it; 0: it has not had the snapshot yet
        self.dirty: dict[_Channel, int] = {}
        self.messages = 0
        self.bytes = 0
        self.conflated = 0


class _Channel:
    """A channel that has a value or a subscriber."""

    __slots__ = (
        "flushed",
        "generation",
        "joining",
        "last",
        "name",
        "pending",
        "snapshot",
        "subscribers",
        "update",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.last: Publication | None = None
        self.update: bytes = b""  # the newest value as an encoded frame
        self.snapshot: bytes = b""  # the same as a snapshot; made when somebody needs it
        self.pending: list[bytes] = []
        # counts changes of epoch: the text alone can't tell when an older epoch comes back
        self.generation = 0
        self.flushed = 0  # the generation of what was flushed last
        # dicts for their order and their removal in constant time
        self.subscribers: dict[Subscriber, None] = {}
        self.joining: dict[Subscriber, int] = {}  # how many of `pending` the joiner's snapshot contains


class _Tree:
    """Channels by their segments, so that a pattern's cost is that of the branches it goes down, not of all channels.

    One frame may name 256 patterns: with 5000 channels, comparing each with each held the loop for three seconds.
    """

    __slots__ = ("branches", "channel")

    def __init__(self) -> None:
        self.branches: dict[str, _Tree] = {}
        self.channel: _Channel | None = None

    def add(self, channel: _Channel) -> None:
        node = self
        for segment in channel.name.split("."):
            node = node.branches.setdefault(segment, _Tree())
        node.channel = channel

    def matching(self, pattern: str) -> list[_Channel]:
        nodes = [self]
        for segment in pattern.split("."):
            if segment == ">":
                return [
                    channel for node in nodes for branch in node.branches.values() for channel in branch.all()
                ]
            if segment == "*":
                nodes = [branch for node in nodes for branch in node.branches.values()]
            else:
                nodes = [node.branches[segment] for node in nodes if segment in node.branches]
        return [node.channel for node in nodes if node.channel is not None]

    def all(self) -> list[_Channel]:
        found: list[_Channel] = []
        nodes = [self]
        while nodes:
            node = nodes.pop()
            nodes.extend(reversed(node.branches.values()))
            if node.channel is not None:
                found.append(node.channel)
        return found


@dataclass(slots=True)
class _Piece:
    """What one flush writes of one channel."""

    channel: _Channel
    generation: int  # of the value before it
    data: bytes
    count: int


@dataclass(slots=True)
class Counters:
    """What the hub has done since it was made. Deliveries are messages times subscribers."""

    publications: int = 0
    duplicates: int = 0
    deliveries: int = 0
    writes: int = 0
    bytes: int = 0
    conflated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """A channel as an acknowledgement shows it. `ts` is the last value's ingest time in Unix ms, None without one."""

    epoch: str
    seq: int
    ts: int | None


class Hub:
    """Fans publications out to subscribers.

    `encode` turns a message into a WebSocket frame. `wake` is called when a flush becomes due while none is; the
    caller then calls `flush` soon, and again as long as it returns True.
    """

    def __init__(self, *, encode: Callable[[bytes], bytes], wake: Callable[[], None]) -> None:
        self.counters = Counters()
        self._encode = encode
        self._wake = wake
        self._beat = 0
        self._channels: dict[str, _Channel] = {}
        self._valued = _Tree()  # those that have a value; it stays, and so do they
        self._patterns: dict[str, dict[Subscriber, None]] = {}
        self._subscribers: dict[Subscriber, None] = {}
        self._touched: list[_Channel] = []  # channels with something pending
        self._batch: dict[Subscriber, _Piece | list[_Piece]] = {}  # what the running flush still has to write

    # subscribers

    def join(self, sink: Sink) -> Subscriber:
        """Add a connection, subscribed to nothing."""
        subscriber = Subscriber(sink, self._beat)
        self._subscribers[subscriber] = None
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a connection. Nothing is written to its sink any more. Leaving twice is fine."""
        self._subscribers.pop(subscriber, None)
        self._batch.pop(subscriber, None)
        for pattern in subscriber.patterns:
            self._drop_pattern(pattern, subscriber)
        for channel in list(subscriber.channels):
            self._remove(subscriber, channel)

    def send(self, subscriber: Subscriber, message: bytes) -> None:
        """Write one message to one subscriber now: an acknowledgement, an error."""
        frame = self._encode(message)
        subscriber.beat = self._beat
        subscriber.bytes += len(frame)
        subscriber.write(frame)

    # subscriptions

    def state(self, name: str) -> ChannelState:
        """Return a channel's state, also of one that nobody has published to."""
        channel = self._channels.get(name)
        last = None if channel is None else channel.last
        if last is None:
            return ChannelState(epoch="", seq=0, ts=None)
        return ChannelState(epoch=last.epoch, seq=last.seq, ts=last.ts)

    def matches(self, pattern: str) -> int:
        """Return how many channels with a value a pattern matches now."""
        return len(self._valued.matching(pattern))

    def subscribe(self, subscriber: Subscriber, names: Iterable[str]) -> None:
        """Subscribe to channels and patterns, valid and allowed; send the snapshots. Twice is the same as once."""
        for name in names:
            if name in subscriber.patterns or name in subscriber.exact:
                continue
            if is_wildcard(name):
                subscriber.patterns.add(name)
                self._patterns.setdefault(name, {})[subscriber] = None
                found = self._valued.matching(name)
            else:
                subscriber.exact.add(name)
                found = [self._channel(name)]
            for channel in found:
                self._add(subscriber, channel)
        self._catch_up(subscriber)

    def unsubscribe(self, subscriber: Subscriber, names: Iterable[str]) -> list[str]:
        """Undo `subscribe` by the same names; returns those that were subscribed. Nothing of them is sent after it."""
        self._settle(subscriber)
        done: list[str] = []
        for name in names:
            if name in subscriber.patterns:
                subscriber.patterns.discard(name)
                self._drop_pattern(name, subscriber)
                found = self._valued.matching(name)
            elif name in subscriber.exact:
                subscriber.exact.discard(name)
                found = [self._channels[name]]
            else:
                continue
            done.append(name)
            for channel in found:
                subscriber.channels[channel] -= 1
                if not subscriber.channels[channel]:
                    self._remove(subscriber, channel)
        return done

    def drained(self, subscriber: Subscriber) -> None:
        """Send what a slow subscriber missed, newest values only. Call it when the sink has nothing pending."""
        if subscriber.dirty and subscriber in self._subscribers:
            self._settle(subscriber)  # what the running flush holds for it would come again, and older
            self._catch_up(subscriber)

    # publications

    def publish(self, publication: Publication) -> bool:
        """Take one publication. False: it was seen before (brokers deliver at least once)."""
        channel = self._channel(publication.channel)
        last = channel.last
        if last is not None and last.epoch == publication.epoch and publication.seq <= last.seq:
            self.counters.duplicates += 1
            return False
        self.counters.publications += 1
        if last is None:
            self._first_value(channel)
        # a client can't tell a new epoch from a jump back in seq, unless it begins with a snapshot
        same_epoch = last is not None and last.epoch == publication.epoch
        if not same_epoch:
            channel.generation += 1
        channel.last = publication
        channel.update = self._encode(messages.update(publication))
        channel.snapshot = b""
        if not channel.pending:
            self._touched.append(channel)
        channel.pending.append(channel.update if same_epoch else self._snapshot(channel))
        if len(self._touched) == 1 and len(channel.pending) == 1 and not self._batch:
            self._wake()
        return True

    def flush(self, max_writes: int) -> bool:
        """Write to at most `max_writes` subscribers. True: there is more to do."""
        if not self._batch:
            self._batch = self._collect()
        batch, counters, beat = self._batch, self.counters, self._beat
        for _ in range(min(max_writes, len(batch))):
            subscriber, held = batch.popitem()
            if subscriber.pending() or subscriber.dirty:
                self._conflate(subscriber, held)
                continue
            if type(held) is _Piece:
                data, count = held.data, held.count
            else:
                pieces: list[_Piece] = held  # type: ignore[assignment]  # the other half of the union
                data = b"".join([piece.data for piece in pieces])
                count = sum([piece.count for piece in pieces])
            subscriber.write(data)
            subscriber.beat = beat
            subscriber.messages += count
            subscriber.bytes += len(data)
            counters.writes += 1
            counters.deliveries += count
            counters.bytes += len(data)
        return bool(batch or self._touched)

    def beat(self, *, now_ms: int) -> None:
        """Count one beat and send heartbeats to those who heard nothing for `BEATS_A_HEARTBEAT` beats."""
        self._beat += 1
        due = self._beat - BEATS_A_HEARTBEAT
        frame = self._encode(messages.heartbeat(ts=now_ms))
        for subscriber in self._subscribers:
            if subscriber.beat <= due and not subscriber.pending():
                subscriber.write(frame)
                subscriber.beat = self._beat
                subscriber.bytes += len(frame)

    # inside

    def _channel(self, name: str) -> _Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(name)
        return channel

    def _first_value(self, channel: _Channel) -> None:
        """Let the patterns in on a channel. Before it has a value it is a name that some client made up."""
        self._valued.add(channel)
        for pattern, subscribers in self._patterns.items():
            if covers(pattern, channel.name):
                for subscriber in subscribers:
                    self._add(subscriber, channel)

    def _snapshot(self, channel: _Channel) -> bytes:
        if not channel.snapshot and channel.last is not None:
            channel.snapshot = self._encode(messages.snapshot(channel.last))
        return channel.snapshot

    def _add(self, subscriber: Subscriber, channel: _Channel) -> None:
        covered = subscriber.channels.get(channel, 0)
        subscriber.channels[channel] = covered + 1
        if covered:
            return
        if channel.last is None:
            channel.subscribers[subscriber] = None  # its first value will be a snapshot for everybody
        else:
            subscriber.dirty[channel] = 0  # `_catch_up` sends the snapshot, as fast as the sink takes it

    def _remove(self, subscriber: Subscriber, channel: _Channel) -> None:
        subscriber.channels.pop(channel, None)
        subscriber.dirty.pop(channel, None)
        channel.subscribers.pop(subscriber, None)
        channel.joining.pop(subscriber, None)
        if channel.last is None and not channel.subscribers:
            self._channels.pop(channel.name, None)  # names that clients made up must not pile up

    def _drop_pattern(self, pattern: str, subscriber: Subscriber) -> None:
        subscribers = self._patterns.get(pattern, {})
        subscribers.pop(subscriber, None)
        if not subscribers:
            self._patterns.pop(pattern, None)

    def _collect(self) -> dict[Subscriber, _Piece | list[_Piece]]:
        """Take what is pending on every channel, by subscriber."""
        batch: dict[Subscriber, _Piece | list[_Piece]] = {}
        touched, self._touched = self._touched, []
        for channel in touched:
            pending, channel.pending = channel.pending, []
            before, channel.flushed = channel.flushed, channel.generation
            piece = _Piece(
                channel, before, pending[0] if len(pending) == 1 else b"".join(pending), len(pending)
            )
            if not batch:
                batch = dict.fromkeys(channel.subscribers, piece)
            else:
                for subscriber in channel.subscribers:
                    _put(batch, subscriber, piece)
            if channel.joining:
                for subscriber, contained in channel.joining.items():
                    channel.subscribers[subscriber] = None
                    if rest := pending[contained:]:
                        _put(batch, subscriber, _Piece(channel, before, b"".join(rest), len(rest)))
                channel.joining.clear()
        return batch

    def _conflate(self, subscriber: Subscriber, held: "_Piece | list[_Piece]") -> None:
        pieces = [held] if isinstance(held, _Piece) else held
        for piece in pieces:
            subscriber.dirty.setdefault(piece.channel, piece.generation)
            subscriber.conflated += piece.count
            self.counters.conflated += piece.count

    def _settle(self, subscriber: Subscriber) -> None:
        """Give a subscriber now what the running flush holds for it: what it has is about to change."""
        held = self._batch.pop(subscriber, None)
        if held is None:
            return
        if subscriber.pending() or subscriber.dirty:
            self._conflate(subscriber, held)
            return
        pieces = [held] if isinstance(held, _Piece) else held
        self._write(subscriber, [piece.data for piece in pieces], sum(piece.count for piece in pieces))

    def _catch_up(self, subscriber: Subscriber) -> None:
        """Write the newest value of each dirty channel while the sink takes them."""
        while subscriber.dirty and not subscriber.pending():
            frames: list[bytes] = []
            size = 0
            while subscriber.dirty and size < CATCH_UP_BYTES:
                channel, generation = next(iter(subscriber.dirty.items()))
                del subscriber.dirty[channel]
                frame = channel.update if generation == channel.generation else self._snapshot(channel)
                frames.append(frame)
                size += len(frame)
                # everything pending is contained in that value: enter the shared flush behind it
                if channel.pending:
                    channel.subscribers.pop(subscriber, None)
                    channel.joining[subscriber] = len(channel.pending)
                else:
                    channel.subscribers[subscriber] = None
            self._write(subscriber, frames, len(frames))

    def _write(self, subscriber: Subscriber, frames: list[bytes], count: int) -> None:
        """Write outside the shared flush, which has these lines in itself: a call more would be felt there."""
        data = b"".join(frames)
        subscriber.write(data)
        subscriber.beat = self._beat
        subscriber.messages += count
        subscriber.bytes += len(data)
        self.counters.writes += 1
        self.counters.deliveries += count
        self.counters.bytes += len(data)


def _put(batch: dict[Subscriber, _Piece | list[_Piece]], subscriber: Subscriber, piece: _Piece) -> None:
    held = batch.get(subscriber)
    if held is None:
        batch[subscriber] = piece
    elif type(held) is list:
        held.append(piece)
    else:
        batch[subscriber] = [held, piece]  # type: ignore[list-item]  # the other half of the union
