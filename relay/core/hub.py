"""The hub: one tick in, the same bytes out to every subscriber, with as few writes as the kernel allows.

On loopback the `send` system call is most of a delivery's cost, so the design is about calling it less often:

- A tick is encoded once. Server frames are not masked, so the same bytes fit every socket.
- Publishing only queues the frame at the channel's groups. A flush takes what waits on all channels and writes
  once to each subscriber, however many ticks and channels that is. While nothing is going on that is one tick,
  one write; what comes in while a flush runs makes up the next. There is no timer and no added delay.
- A flush is done in slices, so that handshakes, pings and publishes go on in between.
- Lanes: whoever asked for an interval gets the newest value at each of its beats, the same bytes for the lane.

Who can't keep up (the transport still holds bytes) gets nothing more until it has drained. On `latest` channels it then
gets each one's newest value. On `stream` channels its messages wait in a bounded queue, and when that is full the
connection ends. What a newcomer gets first (snapshots, replays) goes the same way, a slice at a time, behind the rest.

The hub is pure: sinks, an `encode` for frames, beats that somebody else counts; no socket, clock or task. One thread.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from relay.core import messages
from relay.core.batches import Batch, Held, Piece, gather, pieces_of
from relay.core.channels import LANES_MS, ChannelState, Feed, FeedOptions, Group
from relay.core.counters import Counters
from relay.core.heartbeats import send_heartbeats
from relay.core.liveness import Silence
from relay.core.messages import Mode
from relay.core.publications import Publication
from relay.core.subscribers import Behind, Sink, Subscriber
from relay.core.subscriptions import Subscriptions, Want

SLICE_BYTES = 16_384
"""Bytes of snapshots, replays and newest values written at once to one subscriber: about what the kernel takes
without queueing (TCP_NOTSENT_LOWAT of the stream's listener), so that the values behind it stay changeable."""

TRICKLE_MS = 16
"""Between two slices to one subscriber that takes them at once: with 16 KiB a slice, 1 MiB/s."""

QUEUE_BYTES = 1 << 20
"""What a slow reader may have waiting of `stream` channels: seven seconds of 145 KB/s, and Centrifugo's default."""


class Hub:
    """Fans publications out to subscribers.

    `encode` turns a message into a WebSocket frame; `options` tells how a channel behaves. `wake` is called when
    a flush becomes due while none is: call `flush` soon, and again as long as it returns True. `wake_lane` is
    called with an interval in milliseconds when something waits for that lane's next beat: call `beat_lane`
    then; `TRICKLE_MS` is such a lane as well.
    """

    def __init__(
        self,
        *,
        encode: Callable[[bytes], bytes],
        wake: Callable[[], None],
        wake_lane: Callable[[int], None],
        options: Callable[[str], FeedOptions] = lambda _name: FeedOptions(),
    ) -> None:
        self.counters = Counters()
        self._encode = encode
        self._wake = wake
        self._wake_lane = wake_lane
        self._options = options
        self._beat = 0
        self._subscriptions = Subscriptions(encode=encode, options=options)
        self._subscribers: dict[Subscriber, None] = {}
        self._touched: dict[int, list[Group]] = {lane: [] for lane in LANES_MS}  # with something pending
        self._batch: Batch = {}  # what the running flush still has to write
        self._trickle: dict[Subscriber, None] = {}  # who gets a slice at the next beat
        self._silence = Silence()

    @property
    def flushing(self) -> bool:
        """Tell whether a flush has begun that is not over."""
        return bool(self._batch)

    def feeds(self) -> Sequence[Feed]:
        """Return the channels that have a value, in no order. They come, and never go."""
        return self._subscriptions.valued()

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
        self._trickle.pop(subscriber, None)
        subscriber.behind = None
        self._subscriptions.clear(subscriber)

    def send(self, subscriber: Subscriber, message: bytes) -> None:
        """Write one message to one subscriber now: an acknowledgement, an error."""
        frame = self._encode(message)
        subscriber.beat = self._beat
        subscriber.bytes += len(frame)
        subscriber.write(frame)

    # subscriptions

    def watchers(self, name: str) -> int:
        """Return how many subscribers a channel has, or would have if it had a value."""
        return self._subscriptions.watchers(name)

    def state(self, name: str, since: tuple[str, int] | None = None) -> ChannelState:
        """Return a channel's state as `subscribe` would find it, also of one that nobody has published to."""
        return self._subscriptions.state(name, since)

    def matches(self, pattern: str) -> int:
        """Return how many channels with a value a pattern matches now."""
        return len(self._subscriptions.matching(pattern))

    def subscribe(
        self, subscriber: Subscriber, wants: Iterable[Want], *, after: Iterable[bytes] = ()
    ) -> None:
        """Subscribe to channels and patterns, valid and allowed; send what they begin with, in one write with the
        messages `after` which it comes. Subscribing twice is the same as once; with another lane it moves there, and a
        stream channel with `since` begins anew from there.
        """
        self._settle(subscriber)
        for want in wants:
            self._subscriptions.add(subscriber, want)
        self._catch_up(subscriber, [self._encode(message) for message in after])

    def unsubscribe(self, subscriber: Subscriber, names: Iterable[str]) -> list[str]:
        """Undo `subscribe` by the same names; returns those that were subscribed. Nothing of them is sent after it."""
        self._settle(subscriber)
        done = [name for name in names if self._subscriptions.discard(subscriber, name)]
        self._catch_up(subscriber)  # what is covered by another name may have changed its lane
        return done

    def drained(self, subscriber: Subscriber) -> None:
        """Send what a slow subscriber missed. Call it when the sink has nothing pending any more."""
        if subscriber.behind is not None and subscriber in self._subscribers:
            self._settle(subscriber)
            self._catch_up(subscriber)

    # publications

    def publish(self, publication: Publication) -> bool:
        """Take one publication. False: it was seen before (brokers deliver at least once)."""
        feed = self._subscriptions.feed(publication.channel)
        if feed.last is None:
            self._subscriptions.first_value(feed)
        if not feed.accept(publication):
            self.counters.duplicates += 1
            return False
        self.counters.publications += 1
        live_again = self._silence.heard_of(feed)
        for group in feed.groups.values():
            self._touch(group)
            group.put_value()
        if live_again:
            self._tell_state(feed)
        return True

    def alive(self, name: str, *, ts: int) -> None:
        """Hear at `ts`, in Unix ms, that a channel's value is unchanged. One without a value stays stale."""
        feed = self._subscriptions.known(name)
        if feed is None or feed.last is None:
            return
        feed.heard_ms = max(feed.heard_ms, ts)
        if self._silence.heard_of(feed):
            self._tell_state(feed)

    def sweep(self, *, now_ms: int) -> None:
        """Call channels stale that have been silent for longer than they may, and tell their subscribers."""
        for feed in self._silence.sweep(now_ms=now_ms):
            self._tell_state(feed)

    def flush(self, max_writes: int) -> bool:
        """Write to at most `max_writes` subscribers. True: there is more to do."""
        if not self._batch:
            self._collect(0)
        batch, beat = self._batch, self._beat
        # summed up here: the counters' attributes would cost a tenth of a delivery
        writes = deliveries = size = 0
        try:
            for _ in range(min(max_writes, len(batch))):
                if not batch:  # a subscriber that overflowed took others with it
                    break
                subscriber, held = batch.popitem()
                if subscriber.behind is not None or subscriber.pending():
                    self._hold(subscriber, held)
                    continue
                if type(held) is Piece:
                    data, count = held.data, held.count
                else:
                    data = b"".join([piece.data for piece in held])
                    count = sum([piece.count for piece in held])
                subscriber.write(data)
                subscriber.beat = beat
                subscriber.messages += count
                subscriber.bytes += len(data)
                writes += 1
                deliveries += count
                size += len(data)
        finally:  # also when a sink broke its word and raised
            counters = self.counters
            counters.writes += writes
            counters.deliveries += deliveries
            counters.bytes += size
        return bool(batch or self._touched[0])

    def beat_lane(self, interval_ms: int) -> None:
        """Queue a lane's newest values for the flush, or give the next slice to those who catch up."""
        if interval_ms == TRICKLE_MS:
            waiting, self._trickle = self._trickle, {}
            for subscriber in waiting:
                self.drained(subscriber)
        else:
            idle = not self._batch and not self._touched[0]
            self._collect(interval_ms)
            if idle and self._batch:
                self._wake()

    def beat(self, *, now_ms: int) -> Iterator[None]:
        """Count one beat, and return what sends the heartbeats that are due, with room between slices for others."""
        self._beat += 1
        frame = self._encode(messages.heartbeat(ts=now_ms))
        return send_heartbeats(self._subscribers, frame, beat=self._beat)

    # what goes out when

    def _touch(self, group: Group) -> None:
        """Note that something is about to be put to a group."""
        if group.pending:
            return
        touched = self._touched[group.lane]
        touched.append(group)
        if len(touched) > 1:
            return
        if group.lane:
            self._wake_lane(group.lane)
        elif not self._batch:
            self._wake()

    def _collect(self, lane: int) -> None:
        """Take what is pending in a lane, by subscriber."""
        touched, self._touched[lane] = self._touched[lane], []
        self._batch = gather(touched, self._batch)

    def _hold(self, subscriber: Subscriber, held: Held) -> None:
        """Keep for a slow reader what it must have: the newest value of one kind, every message of the other."""
        behind = subscriber.fall_behind()
        for piece in pieces_of(held):
            if not piece.count and piece.feed.options.mode is Mode.LATEST:
                behind.notes[piece.feed] = None
            elif piece.feed.options.mode is Mode.LATEST:
                behind.dirty.setdefault(piece.feed, piece.generation)
                subscriber.conflated += piece.count
                self.counters.conflated += piece.count
            else:
                behind.queue.append((piece.feed, piece.data, piece.count, True))
                behind.queued_bytes += len(piece.data)
        if behind.queued_bytes > QUEUE_BYTES:
            self.counters.overflows += 1
            self.leave(subscriber)
            subscriber.overflow()

    def _settle(self, subscriber: Subscriber) -> None:
        """Give a subscriber now what the running flush holds for it: what it has is about to change."""
        held = self._batch.pop(subscriber, None)
        if held is None:
            return
        if subscriber.behind is not None or subscriber.pending():
            self._hold(subscriber, held)
            return
        pieces = pieces_of(held)
        self._write(subscriber, [piece.data for piece in pieces], sum(piece.count for piece in pieces))

    def _catch_up(self, subscriber: Subscriber, frames: Sequence[bytes] = ()) -> None:
        """Write `frames` and what a subscriber is behind with, as fast as its sink takes it; snapshots a slice at
        a beat. `_settle` comes before it.
        """
        if frames and (subscriber.behind is None or subscriber.pending()):
            self._write(subscriber, frames, 0)
            frames = ()
        while (behind := subscriber.behind) is not None and not subscriber.pending():
            beginning = self._write_slice(subscriber, behind, frames)
            frames = ()
            if behind.is_over():
                subscriber.behind = None
            elif beginning:
                if not self._trickle:
                    self._wake_lane(TRICKLE_MS)
                self._trickle[subscriber] = None
                return

    def _write_slice(self, subscriber: Subscriber, behind: Behind, before: Sequence[bytes]) -> bool:
        """Write one slice. True: it was filled by what subscriptions begin with."""
        frames, size, count, beginning = list(before), 0, 0, False
        while behind.dirty and size < SLICE_BYTES:
            feed, generation = next(iter(behind.dirty.items()))
            del behind.dirty[feed]
            frames.append(feed.update() if generation == feed.generation else feed.snapshot())
            count += 1
            size += len(frames[-1])
            beginning = beginning or not generation
            if feed.noted:
                behind.notes[feed] = None  # it may have been told the opposite, or by a pattern's ack nothing
            # everything pending is contained in that value: enter the shared flush behind it
            waiting = feed.group(subscriber.lane(feed)).enter(subscriber)
            if generation and waiting > 1:
                subscriber.conflated += waiting - 1
                self.counters.conflated += waiting - 1
        while behind.notes and size < SLICE_BYTES:
            feed, _ = behind.notes.popitem()
            frames.append(feed.status())
            size += len(frames[-1])
        while behind.queue and size < SLICE_BYTES:
            _, data, messages_in, live = behind.queue.popleft()
            frames.append(data)
            count += messages_in
            size += len(data)
            if live:
                behind.queued_bytes -= len(data)
        self._write(subscriber, frames, count)
        return beginning and size >= SLICE_BYTES

    def _write(self, subscriber: Subscriber, frames: Sequence[bytes], count: int) -> None:
        """Write outside the shared flush, which has these lines in itself: a call more would be felt there."""
        data = b"".join(frames)
        subscriber.write(data)
        subscriber.beat = self._beat
        subscriber.messages += count
        subscriber.bytes += len(data)
        self.counters.writes += 1
        self.counters.deliveries += count
        self.counters.bytes += len(data)

    def _tell_state(self, feed: Feed) -> None:
        """Queue a status for all who watch a channel."""
        for group in feed.groups.values():
            self._touch(group)
            group.put_note(feed.status())
