"""One connection's place in the hub: its sink, what it is subscribed to, and what it is behind with."""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from relay.core.channels import LANES_MS, Feed

# How a subscriber's names cover a channel, packed into one number: a count for each lane, filled by patterns; above
# them one bit for the exact name; above that the lane in force. A dict for each of a million subscriptions would be
# 200 MB.
FIELD = 12
EXACT = 1 << FIELD * len(LANES_MS)
LANE_SHIFT = FIELD * len(LANES_MS) + 1
COVERED = (1 << LANE_SHIFT) - 1


def one_pattern(lane: int) -> int:
    """Return the cover of one pattern in `lane`."""
    return 1 << FIELD * LANES_MS.index(lane)


def fastest_lane(cover: int) -> int:
    """Return the fastest lane of the patterns in a cover; 0 if there is the exact name alone."""
    return LANES_MS[((cover & -cover).bit_length() - 1) // FIELD % len(LANES_MS)]


class Sink(Protocol):
    """One connection's outgoing side."""

    def write(self, data: bytes, /) -> None:
        """Hand over whole frames. Must not raise and must not call back into the hub."""
        ...

    def pending(self) -> int:
        """Return the bytes handed over that the kernel has not taken yet."""
        ...

    def overflow(self) -> None:
        """End the connection: it was too slow for a `stream` channel, and has left the hub already."""
        ...


@dataclass(slots=True)
class Behind:
    """What a subscriber still has to get."""

    # feed -> the generation that the subscriber last saw of it; 0: it has not had the snapshot yet
    dirty: dict[Feed, int] = field(default_factory=dict)
    notes: dict[Feed, None] = field(default_factory=dict)  # feeds whose status it has to be told
    # feed, frames, messages in them, and whether they are live (or a replay)
    queue: deque[tuple[Feed, bytes, int, bool]] = field(default_factory=deque)
    queued_bytes: int = 0  # of live messages; replays are bounded by the history

    def is_over(self) -> bool:
        """Tell whether nothing is left."""
        return not (self.dirty or self.notes or self.queue)


class Subscriber:
    """One sink's place in the hub. Made by `Hub.join`; its counters may be read at any time."""

    __slots__ = (
        "beat",
        "behind",
        "bytes",
        "conflated",
        "exact",
        "feeds",
        "messages",
        "overflow",
        "patterns",
        "pending",
        "write",
    )

    def __init__(self, sink: Sink, beat: int) -> None:
        # bound once: looking them up for each delivery costs a tenth of it
        self.write = sink.write
        self.pending = sink.pending
        self.overflow = sink.overflow
        self.beat = beat
        self.behind: Behind | None = None
        self.exact: dict[str, int] = {}  # name -> lane
        self.patterns: dict[str, int] = {}
        self.feeds: dict[Feed, int] = {}  # feed -> how it is covered
        self.messages = 0
        self.bytes = 0
        self.conflated = 0

    def lane(self, feed: Feed) -> int:
        """Return the lane in which a feed that it is subscribed to comes."""
        return LANES_MS[self.feeds[feed] >> LANE_SHIFT]

    def fall_behind(self) -> Behind:
        """Return what it is behind with, from now on something."""
        if self.behind is None:
            self.behind = Behind()
        return self.behind
