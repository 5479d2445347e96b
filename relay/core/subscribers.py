"""A connection in the hub: its sink, its subscriptions, and its backlog while it reads too slowly."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from relay.core.channels import INTERVALS_MS, Channel, Encoder, Group, Replay
from relay.core.sent import REST, Mark, Span, Spans, add_span, between

if TYPE_CHECKING:
    from relay.core.batch import Chunk

# How a subscriber's names cover a channel, packed into one number. The lowest bits count the patterns, with one field
# of FIELD bits per flush interval. Above them one bit stands for the exact name. The highest bits are the index of the
# interval in force. A dict for each of a million subscriptions would take 200 MB.
FIELD = 12
EXACT = 1 << FIELD * len(INTERVALS_MS)
INTERVAL_SHIFT = FIELD * len(INTERVALS_MS) + 1
COVERED = (1 << INTERVAL_SHIFT) - 1


def one_pattern(interval_ms: int) -> int:
    """Return the cover of one pattern with a flush interval."""
    return 1 << FIELD * INTERVALS_MS.index(interval_ms)


def shortest_interval(cover: int) -> int:
    """Return the shortest flush interval of the patterns in a cover, or 0 if it has the exact name only."""
    return INTERVALS_MS[((cover & -cover).bit_length() - 1) // FIELD % len(INTERVALS_MS)]


def interval_of(cover: int) -> int:
    """Return the flush interval in force."""
    return INTERVALS_MS[cover >> INTERVAL_SHIFT]


Pack = Callable[[bytes, int], bytes | None]
"""Makes one message of the frames of one flush, for so many readers. None: they are better sent as they are."""


class Sink(Protocol):
    """The outgoing side of a connection. The encoder of its transport is passed to `Hub.join`."""

    def write(self, data: bytes, /) -> None:
        """Send whole frames. Must not raise and must not call the hub."""
        ...

    def pending(self) -> int:
        """Return the number of bytes that were written and that the kernel has not accepted yet."""
        ...

    def overflow(self) -> None:
        """End the connection: it was too slow for a `stream` channel. The hub has removed its subscriber already."""
        ...


@dataclass(slots=True)
class Backlog:
    """What a subscriber still has to get, because its sink did not accept more when it was due."""

    # channel -> the generation of the value that the subscriber has; 0: it has none and needs a snapshot
    outdated: dict[Channel, int] = field(default_factory=dict)
    statuses: dict[Channel, None] = field(default_factory=dict)  # channels whose status must be sent
    # messages of `stream` channels that the subscriber was not ready for
    queue: "deque[Chunk]" = field(default_factory=deque)
    written: dict[Channel, Mark] = field(
        default_factory=dict
    )  # of a channel in `queue`: what was written of it
    queued_bytes: int = 0  # in `queue`
    replays: dict[Channel, Replay] = field(default_factory=dict)
    removed: set[Channel] = field(default_factory=set)  # channels whose messages `purge` takes out of `queue`

    def is_empty(self) -> bool:
        """Tell whether nothing is left to send."""
        return not (self.outdated or self.statuses or self.queue or self.replays)

    def add(self, chunk: "Chunk") -> None:
        """Queue messages of a `stream` channel."""
        self.queue.append(chunk)
        self.written.setdefault(chunk.channel, chunk.before)
        self.queued_bytes += len(chunk.data)

    def take_queued(self, room: int) -> "Iterator[Chunk]":
        """Give what is queued, about `room` bytes, to be written now."""
        while self.queue and room > 0:
            chunk = self.queue.popleft()
            self.written[chunk.channel] = chunk.after
            self.queued_bytes -= len(chunk.data)
            room -= len(chunk.data)
            yield chunk

    def remove(self, channel: Channel) -> None:
        """Remove what waits of one channel. Its messages in `queue` stay until `purge`."""
        self.outdated.pop(channel, None)
        self.statuses.pop(channel, None)
        self.replays.pop(channel, None)
        self.written.pop(channel, None)
        if self.queue:
            self.removed.add(channel)

    def purge(self) -> None:
        """Take the removed channels out of `queue`.

        One pass for all channels of a frame: a pass for each of 256 channels held the event loop for seconds.
        """
        if self.removed:
            self.queue = deque(chunk for chunk in self.queue if chunk.channel not in self.removed)
            self.queued_bytes = sum(len(chunk.data) for chunk in self.queue)
            self.removed.clear()


class Subscriber:
    """One connection's state in the hub. `Hub.join` makes it. Its counters may be read at any time."""

    __slots__ = (
        "backlog",
        "bytes",
        "channels",
        "conflated",
        "encode",
        "exact",
        "last_beat",
        "messages",
        "overflow",
        "patterns",
        "pending",
        "removed",
        "spans",
        "unsent",
        "write",
    )

    def __init__(self, sink: Sink, encode: Encoder, beat: int) -> None:
        # Bound once: an attribute look-up through the sink for each delivery costs a tenth of the delivery.
        self.write = sink.write
        self.pending = sink.pending
        self.overflow = sink.overflow
        self.encode = encode
        self.last_beat = beat  # the heartbeat count when something was written last
        self.backlog: Backlog | None = None
        self.exact: dict[str, int] = {}  # name -> flush interval
        self.patterns: dict[str, int] = {}
        self.channels: dict[Channel, int] = {}  # channel -> how it is covered
        self.messages = 0
        self.bytes = 0
        self.conflated = 0
        self.spans: Spans = {}  # what it was sent, of channels that it has left, or that it gets alone
        self.removed: dict[Channel, None] | None = (
            None  # while the flush held values of them that are in `spans`
        )
        self.unsent = 0  # bytes that its sink had not sent when it left the hub

    def mute(self) -> None:
        """Drop what is written from here on: the sink is gone, and `Hub.leave` follows in a later turn.

        It is then like a reader that takes nothing, so that nothing is counted as sent.
        """
        self.write, self.pending, self.overflow = _drop, _always_pending, _nothing

    def count_from_group(self, channel: Channel, begin: Mark | None, end: Mark) -> None:
        """Count what it got in a group, from where it entered to where it left. None: it was too slow."""
        if begin is not None:
            for epoch, span in between(begin, end):
                add_span(self.spans, channel.spans_key(epoch), span)

    def pause(self, chunk: "Chunk") -> None:
        """Count what it got of a channel before it was too slow for `chunk`. It gets the newest value later."""
        subscribers = self.group(chunk.channel).subscribers
        if subscribers.get(self) is not None:
            self.count_from_group(chunk.channel, subscribers[self], chunk.before)
            subscribers[self] = None

    def uncount(self, chunk: "Chunk") -> None:
        """Take back what was counted of a removed channel, because it is not written after all."""
        if self.removed is not None and chunk.channel in self.removed:
            for epoch, span in between(chunk.before, chunk.after):
                known = self.spans.get((chunk.channel.name, epoch), self.spans.get(REST))
                if known is not None:
                    known.messages -= span.messages
                    known.complete = False

    def take_replays(self, backlog: Backlog, room: int) -> tuple[list[bytes], bool]:
        """Return the next frames of the replays, about `room` bytes, and whether the message that follows is lost."""
        frames: list[bytes] = []
        while backlog.replays and room > 0:
            channel, replay = next(iter(backlog.replays.items()))
            first = replay.seq + 1
            taken = replay.take(self.encode, room)
            if taken:
                self.count_alone(channel, first, replay.seq, len(taken))
            frames += taken
            room -= sum(map(len, taken))
            if replay.generation != channel.generation:  # what remained of the old epoch is gone
                del backlog.replays[channel]
                backlog.outdated[channel] = 0
            elif not replay.remaining:
                del backlog.replays[channel]
                if channel.was_stale:
                    backlog.statuses[channel] = None
                self.group(channel).join(self)  # it gets what is queued after the last value
            elif room > 0:
                return frames, True
        return frames, False

    def count_newest(self, channel: Channel) -> None:
        """Count the channel's newest value, which was written to it alone."""
        assert channel.last is not None
        self.count_alone(channel, channel.last.seq, channel.last.seq, 1)

    def count_alone(self, channel: Channel, first: int, last: int, messages: int) -> None:
        """Count values of the channel's current epoch that were written to it alone."""
        assert channel.last is not None
        add_span(self.spans, channel.spans_key(channel.last.epoch), Span(first, last, messages))

    def group(self, channel: Channel) -> Group:
        """Return the interval group in which it gets a channel that it is subscribed to."""
        return channel.group(interval_of(self.channels[channel]), self.encode)

    def ensure_backlog(self) -> Backlog:
        """Return the backlog. It is created if there is none."""
        if self.backlog is None:
            self.backlog = Backlog()
        return self.backlog


def _drop(_data: bytes, /) -> None:
    pass


def _always_pending() -> int:
    return 1


def _nothing() -> None:
    pass
