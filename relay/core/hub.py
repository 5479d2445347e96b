"""The hub: one publication comes in, and the same bytes go out to every subscriber of a transport.

The hub is pure. It writes to sinks and is told when to flush. It has no socket, clock or task, and it runs on one
thread.

The cost of a delivery on loopback is mostly the `send` system call, so the design makes few of these calls:

- A publication is encoded once per transport that has subscribers, when the first of them needs it. WebSocket frames
  of a server are not masked (RFC 6455 §5.1), so the same bytes fit every WebSocket connection.
- `publish` only queues frames at the channel's interval groups. `flush` takes what is queued on all channels and
  writes once to each subscriber. On an idle relay that is one publication and one write. Publications that arrive
  while a flush runs form the next one, which the caller may put off (`relay.stream.fanout`). But those with few
  subscribers still go out with what the flush has for them.
- A flush is done in slices, so that handshakes, pings and publications are handled between them.
- Subscribers with a flush interval get the newest value once per interval, and share its bytes too. Those that can read
  packed messages share one for all that the flush has for them.

A subscriber whose sink still has pending bytes gets no further write. Its messages go to its backlog until the sink has
drained. For `latest` channels the backlog keeps only which channels are outdated, and the newest value of each is
sent later. For `stream` channels it is a bounded queue of frames, and a full queue ends the connection. Snapshots
and replays of new subscriptions also go through the backlog, one slice at a time. A replay is a position in a channel's
history. If the history loses a message before it was written, the connection ends too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from relay.core import messages
from relay.core.batch import Batch, Chunk, Chunks, SharedChunks, are_few, as_list, gather, share
from relay.core.catch_up import CATCH_UP_MS, CatchUp
from relay.core.channels import INTERVALS_MS, Channel, ChannelOptions, Encoder, Group, IdEncoder
from relay.core.counters import Counters
from relay.core.liveness import SilenceDetector, send_heartbeats
from relay.core.messages import Mode
from relay.core.positions import Positions
from relay.core.publications import Publication
from relay.core.sent import Spans
from relay.core.subscribers import Backlog, Pack, Sink, Subscriber
from relay.core.subscriptions import SubscribeRequest, Subscriptions

SLICE_BYTES = 16_384
"""Bytes of snapshots, replays and newest values written at once to one subscriber. The kernel accepts about as much
without queueing (TCP_NOTSENT_LOWAT of the stream's listener). What is still in the backlog can be replaced by newer
values, and bytes in the kernel's queue can't."""

WRITES_A_PACK = 10
"""Packing a message of 20 prices takes as long as so many writes. A turn of the event loop does fewer of both."""

MAX_REMOVED = 10_000
"""Removed channels that are remembered. A forgotten one is live again for browsers with its first update only."""

QUEUE_BYTES = 1 << 20
"""Bytes of `stream` channels that may wait for a slow subscriber: seven seconds of 145 KB/s, and Centrifugo's
default."""


class Hub:
    """Sends publications to subscribers.

    `options` returns how a channel behaves. `wake` is called when a flush becomes due while none is: the caller must
    call `flush` soon, and again while it returns True. `wake_interval` is called with an interval in milliseconds
    when something waits for it: the caller must call `flush_interval` when the interval is over, and again while it
    returns True. `CATCH_UP_MS` is such an interval too.

    Silence and the age of a history are measured on the hub's clock: the milliseconds of a clock that never goes back,
    which the caller passes in as `heard_ms` and to `mark_stale`. Without `heard_ms` the publication's time counts.

    `generation` names this hub in the ids of clients: see `relay.core.positions`.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], None],
        wake_interval: Callable[[int], None],
        options: Callable[[str], ChannelOptions] = lambda _name: ChannelOptions(),
        generation: str = "0",
    ) -> None:
        self.positions = Positions(generation)
        self.counters = Counters()
        self._wake = wake
        self._wake_interval = wake_interval
        self._beat = 0
        self._subscriptions = subscriptions = Subscriptions(options=options)
        # questions that the subscriptions answer
        self.channels = subscriptions.with_value
        self.matching, self.match_count = subscriptions.matching, subscriptions.match_count
        self.subscriber_count = subscriptions.subscriber_count
        self.acked_state = subscriptions.acked_state
        self.lacks_history = subscriptions.lacks_history
        self._subscribers: dict[Subscriber, None] = {}
        self._queued: dict[int, list[Group]] = {interval: [] for interval in INTERVALS_MS}  # groups to flush
        self._batch: Batch = {}
        self._has_packed = False  # whether the batch may have messages for all readers of a set
        self._order: list[Subscriber] = []  # in which this flush writes, the next one last
        self._packing: dict[Subscriber, Pack] = {}
        self._catching_up = CatchUp(wake_interval)
        self._silence = SilenceDetector()
        self._removed: dict[str, bool] = {}  # their subscribers are told when they are live again

    @property
    def flushing(self) -> bool:
        """Whether a flush has begun and is not finished."""
        return bool(self._batch and self._order)

    # subscribers

    def join(self, sink: Sink, encode: Encoder, pack: Pack | None = None) -> Subscriber:
        """Add a connection without any subscription. `encode` makes frames of its transport.

        With `pack` it gets what an interval's flush has for it as one message.
        """
        subscriber = Subscriber(sink, encode, self._beat)
        self._subscribers[subscriber] = None
        if pack is not None:
            self._packing[subscriber] = pack
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a connection. Nothing is written to its sink after this. A second call does nothing."""
        if subscriber not in self._subscribers:
            return
        del self._subscribers[subscriber]
        self._packing.pop(subscriber, None)
        chunks = as_list(self._batch.pop(subscriber, []))
        self._catching_up.discard(subscriber)
        for chunk in chunks:
            subscriber.uncount(chunk)
        self._subscriptions.clear(subscriber, {chunk.channel: chunk.before for chunk in reversed(chunks)})
        subscriber.unsent = subscriber.pending()
        subscriber.backlog = None

    def take_spans(self, subscriber: Subscriber) -> Spans:
        """Return what a subscriber was sent since the last call, by channel and epoch."""
        self._flush_subscriber(subscriber)
        return self._subscriptions.take_spans(subscriber)

    def send(self, subscriber: Subscriber, message: bytes) -> None:
        """Write one message, such as an acknowledgement or an error, to one subscriber now."""
        frame = subscriber.encode(message)
        subscriber.last_beat = self._beat
        subscriber.bytes += len(frame)
        subscriber.write(frame)

    # subscriptions

    def subscribe(
        self, subscriber: Subscriber, requests: Iterable[SubscribeRequest], *, after: Iterable[bytes] = ()
    ) -> None:
        """Subscribe to channels and patterns, and send their first data.

        The caller has checked that the names are valid and allowed. The messages `after` are written before the data,
        in the same write if possible. A repeated subscription changes nothing, except that a new interval replaces the
        old one and that a `stream` channel with `since` starts again from there.
        """
        self._flush_subscriber(subscriber)
        if subscriber not in self._subscribers:  # it was too slow
            return
        for request in requests:
            self._subscriptions.add(subscriber, request)
        self._purge_backlog(subscriber)
        self._catch_up(subscriber, [subscriber.encode(message) for message in after])

    def unsubscribe(self, subscriber: Subscriber, names: Iterable[str]) -> list[str]:
        """Undo `subscribe` of the same names, and return those that were subscribed.

        Nothing of them is sent afterwards, unless another subscription covers it.
        """
        self._flush_subscriber(subscriber)
        removed = [name for name in names if self._subscriptions.discard(subscriber, name)]
        self._purge_backlog(subscriber)
        self._catch_up(subscriber)  # a channel that another name covers may have changed its interval
        return removed

    def drained(self, subscriber: Subscriber) -> None:
        """Send the backlog of a subscriber. Call this when its sink has no pending bytes any more."""
        if subscriber.backlog is not None and subscriber in self._subscribers:
            self._flush_subscriber(subscriber)
            self._catch_up(subscriber)

    # publications

    def publish(self, publication: Publication, heard_ms: int | None = None) -> bool:
        """Accept one publication. False: it is a repetition (brokers deliver at least once)."""
        channel = self._subscriptions.find_or_create(publication.channel)
        if channel.last is None:
            channel.stale = channel.was_stale = self._removed.pop(channel.name, False)
            self._subscriptions.attach_patterns(channel)
        heard_ms = publication.ts if heard_ms is None else heard_ms
        if not channel.accept(publication, heard_ms, self.positions.unwritten):
            self.counters.duplicates += 1
            return False
        self.counters.publications += 1
        is_live_again = self._silence.heard(channel)
        for group in channel.groups.values():
            self._schedule(group)
            group.queue_value()
        if is_live_again:
            self._queue_status(channel)
        return True

    def alive(self, name: str, *, ts: int, heard_ms: int | None = None) -> None:
        """Record a sign of life: at `ts`, in Unix ms, the value is unchanged. Without a value it is ignored."""
        channel = self._subscriptions.find(name)
        if channel is None or channel.last is None:
            return
        channel.signs_of_life += 1
        channel.last_heard_ms, channel.heard_ms = ts, ts if heard_ms is None else heard_ms
        if self._silence.heard(channel):
            self._queue_status(channel)

    def is_named(self, name: str) -> bool:
        """Tell whether any subscriber has a channel by its exact name. This looks at each connection."""
        return any(name in subscriber.exact for subscriber in self._subscribers)

    def remove(self, name: str) -> bool:
        """Forget a channel with its value and its history. False: it has no value.

        Its subscribers are told that it is stale. Their subscriptions stay: if the channel comes back, it begins with a
        snapshot. A slow subscriber that waits for messages of a `stream` channel is ended, because they are gone.
        """
        channel = self._subscriptions.find(name)
        if channel is None or channel.last is None:
            return False
        was_stale, channel.stale = channel.stale, True
        self._silence.forget(channel)
        status = messages.status(channel=name, stale=True, since=channel.last_heard_ms)
        for subscriber in [one for one in self._subscribers if channel in one.channels]:
            if (backlog := subscriber.backlog) is None:
                continue
            if channel in backlog.replays or any(chunk.channel is channel for chunk in backlog.queue):
                self._overflow(subscriber)  # it was promised every message
            elif channel in backlog.outdated or channel in backlog.statuses:
                # Now: what waits there would come after the snapshot of a value that follows.
                knows_value = backlog.outdated.pop(channel, 1)
                backlog.statuses.pop(channel, None)
                if knows_value or name in subscriber.exact:
                    self.send(subscriber, status)
        if not was_stale:
            self._queue_status(channel)
        is_idle = not self._batch and not self._queued[0]
        self._batch = gather([g for g in channel.groups.values() if g.queue], self._batch, self.positions)
        if is_idle and self._batch:
            self._wake()
        subscribers = [one for one in self._subscribers if channel in one.channels]
        self._subscriptions.remove(channel, subscribers)
        if subscribers:
            self._removed[name] = True
            if len(self._removed) > MAX_REMOVED:
                del self._removed[next(iter(self._removed))]
        return True

    def mark_stale(self, *, now_ms: int) -> None:
        """Mark channels as stale that were silent for longer than they may, and tell their subscribers."""
        for channel in self._silence.find_stale(now_ms=now_ms):
            self._queue_status(channel)

    def mark_all_stale(self, wanted: Callable[[str], bool]) -> None:
        """Mark channels as stale whose publications this node does not get. Each is live again with its next one."""
        for channel in self._silence.mark_all(wanted):
            self._queue_status(channel)

    def flush(self, max_writes: int) -> bool:
        """Write to at most `max_writes` subscribers. True: there is more to write."""
        if not self._batch:
            self._order.clear()
            self._has_packed = False
        if not self._has_packed and (not self._order or are_few(self._queued[0], self._batch, max_writes)):
            self._gather(0)
        batch, order, beat = self._batch, self._order, self._beat
        if not order:  # those whose values wait longest come first
            order.extend(reversed(batch))
        # Summed up in local variables: the counters' attributes would cost a tenth of a delivery.
        writes = deliveries = size = packed = 0
        try:
            for _ in range(min(max_writes, len(order))):
                subscriber = order.pop()
                chunks = batch.pop(subscriber, None)
                if chunks is None:  # it has left, or was written to alone
                    continue
                if subscriber.backlog is not None or subscriber.pending():
                    self._add_to_backlog(subscriber, chunks)
                    continue
                if type(chunks) is Chunk:
                    data, count = chunks.data, chunks.count
                elif type(chunks) is SharedChunks:
                    if not chunks.data:
                        if packed * WRITES_A_PACK >= max_writes:
                            batch[subscriber] = chunks
                            order.append(subscriber)
                            break
                        packed += chunks.pack()
                    data, count = chunks.data, chunks.values
                else:
                    frames, count = [], 0
                    for chunk in chunks:  # one loop costs less than a comprehension for each of them
                        frames.append(chunk.data)
                        count += chunk.count
                    data = b"".join(frames)
                subscriber.write(data)
                subscriber.last_beat = beat
                subscriber.messages += count
                subscriber.bytes += len(data)
                writes += 1
                deliveries += count
                size += len(data)
        finally:  # counted too if a sink broke its contract and raised
            counters = self.counters
            counters.writes += writes
            counters.deliveries += deliveries
            counters.bytes += size
        return bool(batch or self._queued[0])

    def flush_interval(self, interval_ms: int) -> bool:
        """Move the newest values of an interval's groups to the flush. For `CATCH_UP_MS`, write the next slices.

        True: there are more slices to write. Call it again in the next turn of the event loop.
        """
        if interval_ms == CATCH_UP_MS:
            return self._catching_up.write(self.drained)
        is_idle = not self._batch and not self._queued[0]
        self._gather(interval_ms)
        if self._packing:
            share(self._batch, self._packing)
            self._has_packed = True
        if is_idle and self._batch:
            self._wake()
        return False

    def beat(self, *, now_ms: int) -> Iterator[None]:
        """Count one beat, and return an iterator that writes the heartbeats that are due, a slice at each step."""
        self._beat += 1
        position = b"" if self._is_writing else self.positions.newest()
        message = messages.heartbeat(ts=now_ms)
        return send_heartbeats(self._subscribers, message, beat=self._beat, position=position)

    # what is written when

    def _schedule(self, group: Group) -> None:
        """Make sure that a group is flushed. Call this before anything is queued in it."""
        if group.queue:
            return
        queued = self._queued[group.interval_ms]
        queued.append(group)
        if len(queued) > 1:
            return
        if group.interval_ms:
            self._wake_interval(group.interval_ms)
        elif not self._batch:
            self._wake()

    def _queue_status(self, channel: Channel) -> None:
        """Queue a `status` frame for all subscribers of a channel."""
        for group in channel.groups.values():
            self._schedule(group)
            group.queue_status()

    def _gather(self, interval_ms: int) -> None:
        """Move what is queued in the groups of an interval to the batch."""
        groups, self._queued[interval_ms] = self._queued[interval_ms], []
        self._batch = gather(groups, self._batch, self.positions)
        if not interval_ms:
            self.positions.flushed()

    def _add_to_backlog(self, subscriber: Subscriber, chunks: Chunks) -> None:
        """Keep what a slow subscriber must get: all messages of `stream` channels, and which others are outdated."""
        backlog = subscriber.ensure_backlog()
        for each in as_list(chunks):
            # an id says that nothing is missing before it
            chunk = each.without_ids() if backlog.outdated or backlog.replays else each
            if chunk.channel.removed:
                # Nothing newer will come in its place. It may have missed values of a `latest` channel before these.
                is_latest = chunk.channel.options.mode is Mode.LATEST
                data = chunk.channel.status(subscriber.encode) if is_latest else chunk.data
                self._write(subscriber, [data], 0 if is_latest else chunk.count)
                if is_latest:
                    subscriber.uncount(chunk)
            elif not chunk.count and chunk.channel.options.mode is Mode.LATEST:
                backlog.statuses[chunk.channel] = None
            elif chunk.channel.options.mode is Mode.LATEST:
                if chunk.channel not in backlog.outdated:
                    backlog.outdated[chunk.channel] = chunk.generation
                    subscriber.pause(chunk)
                self._count_conflated(subscriber, chunk.count)
            else:
                backlog.add(chunk)
        if backlog.queued_bytes > QUEUE_BYTES:
            self._overflow(subscriber)

    def _overflow(self, subscriber: Subscriber) -> None:
        """End a connection that was too slow for a `stream` channel."""
        self.counters.overflows += 1
        self.leave(subscriber)
        subscriber.overflow()

    def _purge_backlog(self, subscriber: Subscriber) -> None:
        """Remove from the backlog what the subscriptions do not cover any longer."""
        backlog = subscriber.backlog
        if backlog is not None:
            backlog.purge()
            if backlog.is_empty():
                subscriber.backlog = None

    def _flush_subscriber(self, subscriber: Subscriber) -> None:
        """Write what the running flush holds for one subscriber. Needed before its subscriptions change."""
        chunks = self._batch.pop(subscriber, None)
        if chunks is None:
            return
        if subscriber.backlog is not None or subscriber.pending():
            self._add_to_backlog(subscriber, chunks)
            return
        listed = as_list(chunks)
        self._write(subscriber, [chunk.data for chunk in listed], sum(chunk.count for chunk in listed))

    def _catch_up(self, subscriber: Subscriber, frames: Sequence[bytes] = ()) -> None:
        """Write `frames` and then the backlog while the sink accepts it. `_flush_subscriber` comes before this.

        First values and replays of subscriptions are written one slice per `CATCH_UP_MS`.
        """
        if frames and (subscriber.backlog is None or subscriber.pending()):
            position = self._position(subscriber) if subscriber.backlog is None else []
            self._write(subscriber, [*frames, *position], 0)
            frames = ()
        while (backlog := subscriber.backlog) is not None and not subscriber.pending():
            is_limited = self._write_slice(subscriber, backlog, frames)
            frames = ()
            if subscriber.backlog is not backlog:  # it was too slow
                return
            if backlog.is_empty():
                subscriber.backlog = None
            elif is_limited:
                self._catching_up.add(subscriber)
                return

    def _write_slice(self, subscriber: Subscriber, backlog: Backlog, before: Sequence[bytes]) -> bool:
        """Write one slice of a backlog. True: the slice is full and has first values or replays of subscriptions."""
        frames, size, count, has_first_values, is_lost = list(before), 0, 0, False, False
        encode = subscriber.encode
        while backlog.outdated and size < SLICE_BYTES:
            channel, generation = next(iter(backlog.outdated.items()))
            del backlog.outdated[channel]
            is_known = generation == channel.generation
            frames.append(channel.update(encode) if is_known else channel.snapshot(encode))
            subscriber.count_newest(channel)
            count += 1
            size += len(frames[-1])
            has_first_values = has_first_values or not generation
            if channel.was_stale:
                # The subscriber may know an outdated status. The acknowledgement of a pattern names none.
                backlog.statuses[channel] = None
            # The value contains all that is queued in the group, so the subscriber gets what is queued after it.
            contained = subscriber.group(channel).join(subscriber)
            if generation and contained > 1:
                self._count_conflated(subscriber, contained - 1)
        while backlog.statuses and size < SLICE_BYTES:
            channel, _ = backlog.statuses.popitem()
            frames.append(channel.status(encode))
            size += len(frames[-1])
        for chunk in backlog.take_queued(SLICE_BYTES - size):
            frames.append(chunk.data)
            count += chunk.count
            size += len(chunk.data)
        if backlog.replays and size < SLICE_BYTES:
            has_first_values = True
            replayed, is_lost = subscriber.take_replays(backlog, SLICE_BYTES - size)
            frames += replayed
            count += len(replayed)
            size += sum(map(len, replayed))
        if has_first_values and backlog.is_empty():
            frames += self._position(subscriber)
        if frames:
            self._write(subscriber, frames, count)
        if is_lost:
            self._overflow(subscriber)
        return has_first_values and size >= SLICE_BYTES

    @property
    def _is_writing(self) -> bool:
        """Whether anything that was published still has to be written, except what is in backlogs."""
        return bool(self._batch or self._queued[0])

    def _position(self, subscriber: Subscriber) -> list[bytes]:
        """Return the id of a subscriber that has got everything, if its transport has ids and this is the moment."""
        if self._is_writing or not isinstance(subscriber.encode, IdEncoder):
            return []
        return [subscriber.encode.with_id(self.positions.newest())]

    def _write(self, subscriber: Subscriber, frames: Sequence[bytes], count: int) -> None:
        """Write to one subscriber. `flush` has its own copy of these lines: a call per delivery would be measurable."""
        data = b"".join(frames)
        subscriber.write(data)
        subscriber.last_beat = self._beat
        subscriber.messages += count
        subscriber.bytes += len(data)
        self.counters.writes += 1
        self.counters.deliveries += count
        self.counters.bytes += len(data)

    def _count_conflated(self, subscriber: Subscriber, count: int) -> None:
        subscriber.conflated += count
        self.counters.conflated += count
