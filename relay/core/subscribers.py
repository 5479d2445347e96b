"""A connection in the hub: its sink, its subscriptions, and its backlog while it reads too slowly."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from relay.core.channels import INTERVALS_MS, Channel, Encoder, Group, Replay

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
    # messages of `stream` channels that the subscriber was not ready for: channel, frames, number of messages in them
    queue: deque[tuple[Channel, bytes, int]] = field(default_factory=deque)
    queued_bytes: int = 0  # in `queue`
    replays: dict[Channel, Replay] = field(default_factory=dict)
    removed: set[Channel] = field(default_factory=set)  # channels whose messages `purge` takes out of `queue`

    def is_empty(self) -> bool:
        """Tell whether nothing is left to send."""
        return not (self.outdated or self.statuses or self.queue or self.replays)

    def remove(self, channel: Channel) -> None:
        """Remove what waits of one channel. Its messages in `queue` stay until `purge`."""
        self.outdated.pop(channel, None)
        self.statuses.pop(channel, None)
        self.replays.pop(channel, None)
        if self.queue:
            self.removed.add(channel)

    def purge(self) -> None:
        """Take the removed channels out of `queue`.

        One pass for all channels of a frame: a pass for each of 256 channels held the event loop for seconds.
        """
        if self.removed:
            self.queue = deque(item for item in self.queue if item[0] not in self.removed)
            self.queued_bytes = sum(len(data) for _, data, _ in self.queue)
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

    def mute(self) -> None:
        """Drop what is written from here on: the sink is gone, and `Hub.leave` follows in a later turn."""
        self.write, self.pending = _drop, _nothing_pending

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


def _nothing_pending() -> int:
    return 0
