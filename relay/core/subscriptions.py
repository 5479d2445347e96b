"""Who is subscribed to what: exact names and patterns on one side, channels with their groups on the other.

A channel can be covered by its exact name and by several patterns at once and is sent once: in the exact name's
lane, else in the fastest of the patterns'. Matching is done when a subscription or a channel appears, never per
tick. All that changes here leaves the subscriber without a gap and without a repeat; the hub settles what its
running flush holds for the subscriber before it calls.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from relay.core.channels import LANES_MS, ChannelState, Feed, FeedOptions
from relay.core.index import ChannelIndex
from relay.core.messages import Mode
from relay.core.patterns import covers, is_wildcard
from relay.core.subscribers import COVERED, EXACT, LANE_SHIFT, Subscriber, fastest_lane, one_pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One subscription. `lane` is one of `LANES_MS`; `since` is (epoch, seq) of the last message that was seen."""

    name: str
    lane: int = 0
    since: tuple[str, int] | None = None


class Subscriptions:
    """The channels of one hub, and who gets them."""

    def __init__(self, *, encode: Callable[[bytes], bytes], options: Callable[[str], FeedOptions]) -> None:
        self._encode = encode
        self._options = options
        self._feeds: dict[str, Feed] = {}
        self._valued: ChannelIndex[Feed] = ChannelIndex()  # those that have a value; it stays, and so do they
        self._patterns: dict[str, dict[Subscriber, None]] = {}

    def feed(self, name: str) -> Feed:
        """Return the channel called `name`, made if need be."""
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = Feed(name, self._options(name), self._encode)
        return feed

    def first_value(self, feed: Feed) -> None:
        """Let the patterns in on a channel. Before it has a value it is a name that some client made up."""
        self._valued.add(feed.name, feed)
        for pattern, subscribers in self._patterns.items():
            if covers(pattern, feed.name):
                for subscriber in subscribers:
                    cover = subscriber.feeds.get(feed, 0) + one_pattern(subscriber.patterns[pattern])
                    self._cover(subscriber, feed, cover)

    def known(self, name: str) -> Feed | None:
        """Return the channel called `name` if it exists."""
        return self._feeds.get(name)

    def state(self, name: str, since: tuple[str, int] | None) -> ChannelState:
        """Return a channel's state, also of one that nobody has published to. `since` is what somebody has of it."""
        feed = self.known(name)
        if feed is None or feed.last is None:
            return ChannelState(mode=self._options(name).mode, epoch="", seq=0, stale=True, recovered=False)
        return ChannelState(
            mode=feed.options.mode,
            epoch=feed.last.epoch,
            seq=feed.last.seq,
            stale=feed.stale,
            recovered=since is not None and feed.since(*since) is not None,
        )

    def valued(self) -> list[Feed]:
        """Return the channels that have a value, in no order."""
        return self._valued.all()

    def matching(self, pattern: str) -> list[Feed]:
        """Return the channels with a value that a pattern matches."""
        return self._valued.matching(pattern)

    def watchers(self, name: str) -> int:
        """Return how many subscribers a channel has, or would have if it had a value."""
        feed = self._feeds.get(name)
        if feed is not None and feed.last is not None:
            return feed.watchers
        waiting = {
            subscriber
            for pattern, subscribers in self._patterns.items()
            if covers(pattern, name)
            for subscriber in subscribers
        }
        by_name = 0 if feed is None else feed.watchers
        return by_name + sum(name not in subscriber.exact for subscriber in waiting)

    def add(self, subscriber: Subscriber, want: Want) -> None:
        """Subscribe to one channel or pattern."""
        if is_wildcard(want.name):
            self._add_pattern(subscriber, want)
        else:
            subscriber.exact[want.name] = want.lane
            feed = self.feed(want.name)
            cover = subscriber.feeds.get(feed, 0) | EXACT
            if want.since is not None and feed.last is not None and feed.options.mode is Mode.STREAM:
                # begun anew from there, also where the token or a pattern has subscribed it already: who resumes
                # would otherwise miss what came while it was away, and be told that it has it
                self._remove(subscriber, feed)
            self._cover(subscriber, feed, cover, since=want.since)

    def discard(self, subscriber: Subscriber, name: str) -> bool:
        """Undo `add` by the same name. False: there is nothing to undo."""
        if name in subscriber.patterns:
            change = one_pattern(subscriber.patterns.pop(name))
            self._drop_pattern(name, subscriber)
            for feed in self._valued.matching(name):
                self._cover(subscriber, feed, subscriber.feeds[feed] - change)
        elif name in subscriber.exact:
            del subscriber.exact[name]
            feed = self._feeds[name]
            self._cover(subscriber, feed, subscriber.feeds[feed] & ~EXACT)
        else:
            return False
        return True

    def clear(self, subscriber: Subscriber) -> None:
        """Undo everything that a subscriber added."""
        for pattern in subscriber.patterns:
            self._drop_pattern(pattern, subscriber)
        for feed in list(subscriber.feeds):
            self._remove(subscriber, feed)
        subscriber.exact.clear()
        subscriber.patterns.clear()

    def _add_pattern(self, subscriber: Subscriber, want: Want) -> None:
        old = subscriber.patterns.get(want.name)
        change = one_pattern(want.lane) - (0 if old is None else one_pattern(old))
        if not change:
            return
        subscriber.patterns[want.name] = want.lane
        self._patterns.setdefault(want.name, {})[subscriber] = None
        for feed in self._valued.matching(want.name):
            self._cover(subscriber, feed, subscriber.feeds.get(feed, 0) + change)

    def _drop_pattern(self, pattern: str, subscriber: Subscriber) -> None:
        subscribers = self._patterns.get(pattern, {})
        subscribers.pop(subscriber, None)
        if not subscribers:
            self._patterns.pop(pattern, None)

    def _cover(
        self, subscriber: Subscriber, feed: Feed, cover: int, *, since: tuple[str, int] | None = None
    ) -> None:
        """Set how a subscriber's names cover a feed: it begins, ends, or moves to another lane."""
        cover &= COVERED
        old = subscriber.feeds.get(feed, 0)
        if not cover:
            self._remove(subscriber, feed)
            return
        lane = 0
        if feed.options.mode is Mode.LATEST:
            # the exact name's lane first, else the fastest of the patterns'
            lane = subscriber.exact[feed.name] if cover & EXACT else fastest_lane(cover)
        subscriber.feeds[feed] = cover | LANES_MS.index(lane) << LANE_SHIFT
        if not old:
            feed.watchers += 1
            self._begin(subscriber, feed, since)
        elif old >> LANE_SHIFT != LANES_MS.index(lane):
            self._move(subscriber, feed, LANES_MS[old >> LANE_SHIFT])

    def _begin(self, subscriber: Subscriber, feed: Feed, since: tuple[str, int] | None) -> None:
        if feed.last is None:
            feed.group(subscriber.lane(feed)).subscribers[subscriber] = (
                None  # its first value is a snapshot for all
            )
            return
        missed = None if since is None else feed.since(*since)
        if missed is None:
            subscriber.fall_behind().dirty[feed] = 0
            return
        if missed:
            subscriber.fall_behind().queue.extend((feed, frame, 1, False) for frame in missed)
        feed.group(subscriber.lane(feed)).enter(subscriber)

    def _move(self, subscriber: Subscriber, feed: Feed, old_lane: int) -> None:
        """Change the lane without a gap or a repeat."""
        group = feed.groups.get(old_lane)
        dirty = subscriber.behind is not None and feed in subscriber.behind.dirty
        if group is not None:
            contained = group.joining.get(subscriber, 0)
            waiting = [entry for entry in group.pending if entry.number > contained]
            if waiting and not dirty:
                dirty = any(entry.is_value for entry in waiting)
                if dirty:
                    subscriber.fall_behind().dirty[feed] = group.flushed
                else:
                    subscriber.fall_behind().notes[feed] = None
            group.remove(subscriber)
            group.forget_if_empty()
        if not dirty:
            feed.group(subscriber.lane(feed)).enter(subscriber)

    def _remove(self, subscriber: Subscriber, feed: Feed) -> None:
        cover = subscriber.feeds.pop(feed, 0)
        if cover:
            feed.watchers -= 1
        group = feed.groups.get(LANES_MS[cover >> LANE_SHIFT])
        if group is not None:
            group.remove(subscriber)
            group.forget_if_empty()
        behind = subscriber.behind
        if behind is not None:
            behind.dirty.pop(feed, None)
            behind.notes.pop(feed, None)
            if any(item[0] is feed for item in behind.queue):
                behind.queue = deque(item for item in behind.queue if item[0] is not feed)
                behind.queued_bytes = sum(len(item[1]) for item in behind.queue if item[3])
            if behind.is_over():
                subscriber.behind = None
        if feed.last is None and not feed.groups:
            self._feeds.pop(feed.name, None)  # names that clients made up must not pile up
