"""A channel as the hub keeps it: its newest value, its history, and its subscribers in groups of one pace.

All who want a channel at the same interval form a group and share its frames. The group at interval 0 gets every
message; the others get, at each beat of their lane, the newest value if there was one.

A joiner is sent the channel's value at once and must then get what comes after it, no more and no less. Frames
are numbered in the order in which they were put to the group; a joiner remembers the number that its value
already contains (`Group.joining`) and enters the shared flush behind it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from relay.core import messages
from relay.core.messages import Mode
from relay.core.publications import Publication

if TYPE_CHECKING:
    from relay.core.subscribers import Subscriber

LANES_MS = (0, 50, 100, 250, 500, 1000)
"""Intervals that a subscription may have. Few, so that many subscribers share each frame and each beat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    """How a channel behaves. `history_*` bound what is kept for those who come back, in messages and milliseconds."""

    mode: Mode = Mode.LATEST
    silence_ms: int = 5000
    history_messages: int = 0
    history_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """A channel as an acknowledgement shows it. `seq` 0: no value yet. `recovered`: all that was missed will come."""

    mode: Mode
    epoch: str
    seq: int
    stale: bool
    recovered: bool


def lane_for(interval_ms: int, floor_ms: int = 0) -> int:
    """Return the lane for a wish: the next slower one that exists, no faster than the floor, at most 1000 ms."""
    wish = max(interval_ms, floor_ms)
    return next((lane for lane in LANES_MS if lane >= wish), LANES_MS[-1])


class Feed:
    """One channel: the newest value, ready to be sent, and who gets it."""

    __slots__ = (
        "_encode",
        "_snapshot",
        "_update",
        "generation",
        "groups",
        "heard_ms",
        "history",
        "last",
        "name",
        "noted",
        "options",
        "stale",
        "watchers",
    )

    def __init__(self, name: str, options: FeedOptions, encode: Callable[[bytes], bytes]) -> None:
        self.name = name
        self.options = options
        self.last: Publication | None = None
        # counts changes of epoch: the text alone can't tell when an older epoch comes back
        self.generation = 0
        self.heard_ms = 0  # when its publisher was last heard of; a sign of life counts too
        self.stale = False
        self.noted = False  # whether it was ever called stale, so that subscribers may have to be told again
        self.watchers = 0  # subscribers, those included that have yet to get its value
        self.groups: dict[int, Group] = {}
        self.history: deque[tuple[Publication, bytes]] = deque()
        self._encode = encode
        self._update = b""
        self._snapshot = b""

    def group(self, lane: int) -> "Group":
        """Return the group of a lane, made if need be."""
        group = self.groups.get(lane)
        if group is None:
            group = self.groups[lane] = Group(self, lane)
        return group

    def accept(self, publication: Publication) -> bool:
        """Take a value. False: it was seen before. A change of epoch is a new generation."""
        last = self.last
        if last is None or last.epoch != publication.epoch:
            self.generation += 1
            self.history.clear()
        elif publication.seq <= last.seq:
            return False
        self.last = publication
        self.heard_ms = publication.ts
        self._update = self._snapshot = b""
        if self.options.history_messages:
            if self.history and self.history[-1][0].seq + 1 != publication.seq:
                self.history.clear()  # a gap in it would be a gap in somebody's replay
            self.history.append((publication, self.update()))
            self._trim(publication.ts)
        return True

    def update(self) -> bytes:
        """Return the newest value as an `update` frame; made when somebody needs it."""
        if not self._update and self.last is not None:
            self._update = self._encode(messages.update(self.last))
        return self._update

    def snapshot(self) -> bytes:
        """Return the newest value as a `snapshot` frame."""
        if not self._snapshot and self.last is not None:
            self._snapshot = self._encode(messages.snapshot(self.last))
        return self._snapshot

    def status(self) -> bytes:
        """Return whether the channel is stale, and since when, as a `status` frame."""
        return self._encode(messages.status(channel=self.name, stale=self.stale, since=self.heard_ms))

    def since(self, epoch: str, seq: int) -> list[bytes] | None:
        """Return all frames after `seq` of `epoch`, or None if not all of them are kept: never a part."""
        last = self.last
        if last is None or last.epoch != epoch or seq > last.seq or self.options.mode is not Mode.STREAM:
            return None
        if seq == last.seq:
            return []
        self._trim(last.ts)
        if not self.history or self.history[0][0].seq > seq + 1:
            return None
        return [frame for publication, frame in self.history if publication.seq > seq]

    def _trim(self, now_ms: int) -> None:
        history, options = self.history, self.options
        while len(history) > options.history_messages or (
            history and now_ms - history[0][0].ts > options.history_ms
        ):
            history.popleft()


class Entry(NamedTuple):
    """A frame that waits in a group. Numbers grow by one with each frame that was ever put."""

    number: int
    frame: bytes
    is_value: bool


class Group:
    """The subscribers of one channel in one lane, and the frames that the next flush will bring them."""

    __slots__ = ("count", "feed", "flushed", "joining", "lane", "pending", "put_generation", "subscribers")

    def __init__(self, feed: Feed, lane: int) -> None:
        self.feed = feed
        self.lane = lane
        self.flushed = feed.generation  # of what was flushed last: what those who are here know
        self.put_generation = feed.generation  # of what was put last
        self.count = 0
        self.pending: list[Entry] = []
        # dicts for their order and their removal in constant time
        self.subscribers: dict[Subscriber, None] = {}
        self.joining: dict[Subscriber, int] = {}

    def put_value(self) -> None:
        """Queue the feed's newest value. In a lane it replaces the one that waits."""
        feed = self.feed
        if self.lane:
            self.pending = [entry for entry in self.pending if not entry.is_value]
        known = self.flushed if self.lane else self.put_generation
        # a client can't tell a new epoch from a jump back in seq, unless it begins with a snapshot
        self._put(feed.update() if known == feed.generation else feed.snapshot(), is_value=True)
        self.put_generation = feed.generation

    def put_note(self, frame: bytes) -> None:
        """Queue a frame about the channel that is no value."""
        self._put(frame, is_value=False)

    def take(self) -> tuple[int, list[Entry]]:
        """Return what is pending, and the generation that those who get it knew before."""
        before, self.flushed = self.flushed, self.put_generation
        pending, self.pending = self.pending, []
        return before, pending

    def enter(self, subscriber: "Subscriber") -> int:
        """Let a subscriber in who has the newest value already; returns how many values wait, of which it gets none."""
        if self.pending:
            self.subscribers.pop(subscriber, None)
            self.joining[subscriber] = self.count
        else:
            self.subscribers[subscriber] = None
        return sum(entry.is_value for entry in self.pending)

    def remove(self, subscriber: "Subscriber") -> None:
        """Let a subscriber go."""
        self.subscribers.pop(subscriber, None)
        self.joining.pop(subscriber, None)

    def forget_if_empty(self) -> None:
        """Leave the feed when nobody is here any more."""
        if not self.subscribers and not self.joining and not self.pending:
            self.feed.groups.pop(self.lane, None)

    def _put(self, frame: bytes, *, is_value: bool) -> None:
        self.count += 1
        self.pending.append(Entry(self.count, frame, is_value))
