"""The subscriptions: exact names and patterns of the subscribers, and the channels that they cover.

A channel can be covered by its exact name and by several patterns of one subscriber. It is sent once. The flush
interval is that of the exact name, or else the shortest of the patterns'. Patterns are matched when a subscription
is added and when a channel gets its first value, never for each tick.

Each change here leaves the subscriber without a gap and without a repetition. For this the hub must first write what
its running flush holds for the subscriber.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from relay.core.channels import INTERVALS_MS, AckedState, Channel, ChannelOptions, Replay
from relay.core.messages import Mode
from relay.core.patterns import ChannelIndex, covers, is_wildcard
from relay.core.positions import ResumePoint
from relay.core.publications import Publication
from relay.core.sent import Mark, Spans
from relay.core.subscribers import (
    COVERED,
    EXACT,
    INTERVAL_SHIFT,
    Subscriber,
    interval_of,
    one_pattern,
    shortest_interval,
)

_NOTHING: Mapping[Channel, Mark] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeRequest:
    """A request for one channel or pattern.

    `interval_ms` is one of `INTERVALS_MS`. `since` is (epoch, seq) of the last message that the subscriber has.
    `from_broker` is what the broker has after it, if the hub's own history does not reach back. `after` says what it
    has of all channels. It counts first, and for the channels of a pattern too.
    """

    name: str
    interval_ms: int = 0
    since: tuple[str, int] | None = None
    from_broker: Sequence[Publication] = ()
    after: ResumePoint | None = None


class Subscriptions:
    """The channels of one hub and their subscribers."""

    def __init__(self, *, options: Callable[[str], ChannelOptions]) -> None:
        self._options = options
        self._channels: dict[str, Channel] = {}
        self._with_value: ChannelIndex[Channel] = ChannelIndex()
        self._patterns: dict[str, dict[Subscriber, None]] = {}

    def find(self, name: str) -> Channel | None:
        """Return the channel called `name`, or None."""
        return self._channels.get(name)

    def find_or_create(self, name: str) -> Channel:
        """Return the channel called `name`. It is created if it does not exist."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._options(name))
        return channel

    def attach_patterns(self, channel: Channel) -> None:
        """Subscribe pattern subscribers to a channel that is about to get its first value.

        Before that the channel may be a name that a client invented, and patterns do not match it.
        """
        self._with_value.add(channel.name, channel)
        for pattern, subscribers in self._patterns.items():
            if covers(pattern, channel.name):
                for subscriber in subscribers:
                    cover = subscriber.channels.get(channel, 0) + one_pattern(subscriber.patterns[pattern])
                    self._set_cover(subscriber, channel, cover)

    def acked_state(self, request: SubscribeRequest) -> AckedState:
        """Return the state of a channel, which need not exist, or of a pattern."""
        channel = self.find(request.name)
        if channel is None or channel.last is None:
            mode = self._options(request.name).mode
            return AckedState(mode=mode, epoch="", seq=0, stale=True, recovered=False)
        replay = _replay(channel, request)
        return AckedState(
            mode=channel.options.mode,
            epoch=channel.last.epoch,
            seq=channel.last.seq,
            stale=channel.stale,
            recovered=replay is not None,
            missed=0 if replay is None else replay.remaining,
        )

    def lacks_history(self, name: str, epoch: str, seq: int) -> bool:
        """Tell whether a channel had messages after `seq` of `epoch` that its history does not have.

        The broker may have them: pass what it has to `Hub.subscribe`, as `SubscribeRequest.from_broker`.
        """
        channel = self.find(name)
        return channel is not None and channel.lacks_history(epoch, seq)

    def with_value(self) -> list[Channel]:
        """Return the channels that have a value, in no order."""
        return [channel for channel in self._channels.values() if channel.last is not None]

    def matching(self, pattern: str) -> list[Channel]:
        """Return the channels with a value that a pattern matches."""
        return self._with_value.matching(pattern)

    def match_count(self, pattern: str) -> int:
        """Return how many channels with a value a pattern matches now."""
        return len(self.matching(pattern))

    def subscriber_count(self, name: str) -> int:
        """Return how many subscribers a channel has, or would have if it had a value."""
        channel = self._channels.get(name)
        if channel is not None and channel.last is not None:
            return channel.subscriber_count
        by_pattern = {
            subscriber
            for pattern, subscribers in self._patterns.items()
            if covers(pattern, name)
            for subscriber in subscribers
        }
        by_name = 0 if channel is None else channel.subscriber_count
        return by_name + sum(name not in subscriber.exact for subscriber in by_pattern)

    def add(self, subscriber: Subscriber, request: SubscribeRequest) -> None:
        """Subscribe to one channel or pattern."""
        if is_wildcard(request.name):
            self._add_pattern(subscriber, request)
            return
        subscriber.exact[request.name] = request.interval_ms
        channel = self.find_or_create(request.name)
        cover = subscriber.channels.get(channel, 0) | EXACT
        resumes = request.since is not None and channel.last is not None
        if resumes and channel.options.mode is Mode.STREAM:
            # The token or a pattern may have subscribed it to this channel already. Start again from `since`:
            # otherwise the subscriber would miss what came while it was away, and would be told that it recovered.
            self._remove(subscriber, channel)
        self._set_cover(subscriber, channel, cover, request)

    def discard(self, subscriber: Subscriber, name: str) -> bool:
        """Undo `add` of the same name. False: the subscriber has no such subscription."""
        if name in subscriber.patterns:
            change = one_pattern(subscriber.patterns.pop(name))
            self._discard_pattern(name, subscriber)
            for channel in self._with_value.matching(name):
                self._set_cover(subscriber, channel, subscriber.channels[channel] - change)
        elif name in subscriber.exact:
            del subscriber.exact[name]
            channel = self._channels[name]
            self._set_cover(subscriber, channel, subscriber.channels[channel] & ~EXACT)
        else:
            return False
        return True

    def clear(self, subscriber: Subscriber, unwritten: Mapping[Channel, Mark]) -> None:
        """Remove all subscriptions of a subscriber. `unwritten` is what was written of channels with more to write."""
        for pattern in subscriber.patterns:
            self._discard_pattern(pattern, subscriber)
        for channel in list(subscriber.channels):
            self._remove(subscriber, channel, unwritten)
        subscriber.exact.clear()
        subscriber.patterns.clear()

    def remove(self, channel: Channel, subscribers: Iterable[Subscriber]) -> None:
        """Remove a channel. Of `subscribers`, those with its exact name wait for its next value.

        Subscriptions stay. Patterns are matched again when the channel gets a value.
        """
        del self._channels[channel.name]
        self._with_value.remove(channel.name)
        channel.removed = True
        for group in channel.groups.values():
            for subscriber, begin in group.subscribers.items():
                subscriber.count_from_group(channel, begin, group.mark)
                if begin is not None and begin.total < group.mark.total:
                    subscriber.removed = {**(subscriber.removed or {}), channel: None}
            group.subscribers.clear()
            group.joining.clear()
        channel.groups.clear()
        named = [one for one in subscribers if one.channels.pop(channel) & EXACT]
        if named:
            successor = self.find_or_create(channel.name)
            for subscriber in named:
                self._set_cover(subscriber, successor, EXACT)

    def _add_pattern(self, subscriber: Subscriber, request: SubscribeRequest) -> None:
        old = subscriber.patterns.get(request.name)
        change = one_pattern(request.interval_ms) - (0 if old is None else one_pattern(old))
        if not change:
            return
        subscriber.patterns[request.name] = request.interval_ms
        self._patterns.setdefault(request.name, {})[subscriber] = None
        for channel in self._with_value.matching(request.name):
            self._set_cover(subscriber, channel, subscriber.channels.get(channel, 0) + change, request)

    def _discard_pattern(self, pattern: str, subscriber: Subscriber) -> None:
        subscribers = self._patterns.get(pattern, {})
        subscribers.pop(subscriber, None)
        if not subscribers:
            self._patterns.pop(pattern, None)

    def _set_cover(
        self, subscriber: Subscriber, channel: Channel, cover: int, request: SubscribeRequest | None = None
    ) -> None:
        """Set how a subscriber's names cover a channel. The channel starts, ends, or changes its interval."""
        cover &= COVERED
        old = subscriber.channels.get(channel, 0)
        if not cover:
            self._remove(subscriber, channel)
            return
        interval_ms = 0
        if channel.options.mode is Mode.LATEST:
            interval_ms = subscriber.exact[channel.name] if cover & EXACT else shortest_interval(cover)
        subscriber.channels[channel] = cover | INTERVALS_MS.index(interval_ms) << INTERVAL_SHIFT
        if not old:
            channel.subscriber_count += 1
            self._start(subscriber, channel, request)
        elif interval_of(old) != interval_ms:
            self._change_interval(subscriber, channel, interval_of(old))

    def _start(self, subscriber: Subscriber, channel: Channel, request: SubscribeRequest | None) -> None:
        if channel.last is None:
            # The first value is a snapshot for all subscribers.
            group = subscriber.group(channel)
            group.subscribers[subscriber] = group.mark
            return
        replay = None if request is None else _replay(channel, request)
        if replay is None:
            subscriber.ensure_backlog().outdated[channel] = 0
        elif replay.remaining:
            subscriber.ensure_backlog().replays[channel] = (
                replay  # it joins its group at the end of the replay
            )
        else:
            subscriber.group(channel).join(subscriber)

    def _change_interval(self, subscriber: Subscriber, channel: Channel, old_interval_ms: int) -> None:
        """Move a subscriber to the group of its new interval, without a gap or a repetition."""
        group = channel.groups.get((old_interval_ms, subscriber.encode))
        outdated = subscriber.backlog is not None and channel in subscriber.backlog.outdated
        if group is not None:
            contained = group.joining.get(subscriber, 0)
            not_sent = [queued for queued in group.queue if queued.number > contained]
            if not_sent and not outdated:
                outdated = any(queued.value is not None for queued in not_sent)
                if outdated:
                    subscriber.ensure_backlog().outdated[channel] = group.flushed_generation
                else:
                    subscriber.ensure_backlog().statuses[channel] = None
            subscriber.count_from_group(channel, group.remove(subscriber), group.mark)
            group.delete_if_empty()
        if not outdated:
            subscriber.group(channel).join(subscriber)

    def take_spans(self, subscriber: Subscriber) -> Spans:
        """Return what a subscriber was sent since the last call. The hub has written what its flush held for it."""
        backlog = subscriber.backlog
        for channel in subscriber.channels:
            group = channel.groups.get((interval_of(subscriber.channels[channel]), subscriber.encode))
            begin = None if group is None else group.subscribers.get(subscriber)
            if group is not None and begin is not None:
                end = group.mark if backlog is None else backlog.written.get(channel, group.mark)
                subscriber.count_from_group(channel, begin, end)
                group.subscribers[subscriber] = end
        subscriber.removed = None
        spans, subscriber.spans = subscriber.spans, {}
        return spans

    def _remove(
        self, subscriber: Subscriber, channel: Channel, unwritten: Mapping[Channel, Mark] = _NOTHING
    ) -> None:
        cover = subscriber.channels.pop(channel, 0)
        if cover:
            channel.subscriber_count -= 1
        group = channel.groups.get((interval_of(cover), subscriber.encode))
        if group is not None:
            end = unwritten.get(channel, group.mark)
            if subscriber.backlog is not None:
                end = subscriber.backlog.written.get(channel, end)
            subscriber.count_from_group(channel, group.remove(subscriber), end)
            group.delete_if_empty()
        backlog = subscriber.backlog
        if backlog is not None:
            backlog.remove(channel)
            if backlog.is_empty():
                subscriber.backlog = None
        if channel.last is None and not channel.groups:
            self._channels.pop(channel.name, None)  # clients can invent names without end


def _replay(channel: Channel, request: SubscribeRequest) -> Replay | None:
    replay = None if request.after is None else channel.missed_after(request.after)
    if replay is None and request.since is not None:
        replay = channel.missed_since(*request.since, request.from_broker)
    return replay
