"""Channels: the newest value, the history, and the groups of subscribers that share frames.

Subscribers of one channel with the same flush interval and the same encoder form an interval group. A frame is
encoded once for a group, and the same bytes are written to all its subscribers. The group with interval 0 gets
every message. The other groups get the newest value once per interval, if there is a new one.

A new subscriber is sent the newest value at once. After that it must get all later messages and no earlier one.
For this, the frames of a group are numbered in the order in which they are queued. A subscriber that joins while
frames are queued is kept in `Group.joining`, with the number of the last frame that its value already contains.
The next flush sends it the later frames only and moves it to `Group.subscribers`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from relay.core import messages
from relay.core.messages import Mode
from relay.core.positions import ResumePoint
from relay.core.publications import Publication
from relay.core.sent import Mark

if TYPE_CHECKING:
    from relay.core.subscribers import Subscriber

Encoder = Callable[[bytes], bytes]
"""Turns one message into one frame of a transport, for example a WebSocket text frame.

The encoder identifies the transport: all connections of a transport must pass the same function object, because
only subscribers with equal encoders share frames.
"""


class IdEncoder(ABC):
    """An encoder of a transport whose clients keep an id, with which they resume: see `relay.core.positions`."""

    @abstractmethod
    def __call__(self, message: bytes) -> bytes:
        """See `Encoder`."""

    @abstractmethod
    def with_id(self, position: bytes, frame: bytes = b"") -> bytes:
        """Return a frame with an id. Without a frame: something that only changes the id."""


INTERVALS_MS = (0, 50, 100, 250, 500, 1000)
"""The flush intervals that a subscription may have. They are few, so that many subscribers share each frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How a channel behaves.

    A channel is stale after `silence_ms` without a sign of life of its publisher. `history_messages` and
    `history_ms` bound the history, which is kept for subscribers that resume.
    """

    mode: Mode = Mode.LATEST
    silence_ms: int = 5000
    history_messages: int = 0
    history_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AckedState:
    """A channel's state as an acknowledgement shows it.

    `seq` is 0 if the channel has no value yet. `recovered` means that the subscriber will get every message that
    it missed: `missed` messages, 0 if it is not recovered.
    """

    mode: Mode
    epoch: str
    seq: int
    stale: bool
    recovered: bool
    missed: int = 0


def granted_interval(interval_ms: int, floor_ms: int = 0) -> int:
    """Return the flush interval for a requested one: the next longer one that exists, and never below `floor_ms`.

    The longest interval, 1000 ms, is the answer to every longer request.
    """
    at_least = max(interval_ms, floor_ms)
    return next((interval for interval in INTERVALS_MS if interval >= at_least), INTERVALS_MS[-1])


class Value:
    """One publication and its `update` frames, one per transport that has needed it so far.

    `heard_ms` is when it was accepted here, on the hub's clock. `position` is its place among all values that were
    written: see `relay.core.positions`.
    """

    __slots__ = ("_updates", "heard_ms", "position", "publication")

    def __init__(self, publication: Publication, heard_ms: int = 0, position: int = 0) -> None:
        self.publication = publication
        self.heard_ms = heard_ms
        self.position = position
        # Pairs and not a dict: there are one or two transports, and a dict would add 230 bytes to each message
        # of a history.
        self._updates: tuple[tuple[Encoder, bytes], ...] = ()

    def update(self, encode: Encoder) -> bytes:
        """Return the value as an `update` frame. The first subscriber of a transport has it encoded."""
        for encoder, frame in self._updates:
            if encoder == encode:
                return frame
        frame = encode(messages.update(self.publication))
        self._updates += ((encode, frame),)
        return frame


class Channel:
    """One channel. It has a value from the first publication on.

    A removed channel is only for what still waits to be written of it. If its name comes back, it is another object.
    """

    __slots__ = (
        "_before",
        "_snapshots",
        "_spans_key",
        "generation",
        "groups",
        "heard_ms",
        "history",
        "last",
        "last_heard_ms",
        "name",
        "newest",
        "options",
        "removed",
        "signs_of_life",
        "stale",
        "subscriber_count",
        "was_stale",
    )

    def __init__(self, name: str, options: ChannelOptions) -> None:
        self.name = name
        self.options = options
        self.last: Publication | None = None
        # Counts changes of the epoch. The epoch's text is not enough: an older epoch can come back.
        self.generation = 0
        # The publisher's last sign of life, which a publication is too: in Unix ms, which is shown, and on the hub's
        # clock, which decides.
        self.last_heard_ms = self.heard_ms = 0
        self.signs_of_life = 0  # those without a value
        self.removed = False
        self.stale = False
        self.was_stale = False  # if so, a subscriber may know an outdated status
        self.subscriber_count = 0  # includes subscribers that have not got the newest value yet
        self.groups: dict[tuple[int, Encoder], Group] = {}
        self.history: deque[Value] = deque()
        self._before: Value | None = None  # a client without it may have missed more than the history has
        self.newest: Value | None = None
        self._snapshots: dict[Encoder, bytes] = {}
        self._spans_key = (name, "")

    def spans_key(self, epoch: str) -> tuple[str, str]:
        """Return the key of what is sent of an epoch: one object, because each subscriber keeps it for each channel."""
        if self._spans_key[1] != epoch:
            self._spans_key = (self.name, epoch)
        return self._spans_key

    def group(self, interval_ms: int, encode: Encoder) -> "Group":
        """Return the group of an interval and a transport. It is created if it does not exist."""
        group = self.groups.get((interval_ms, encode))
        if group is None:
            group = self.groups[interval_ms, encode] = Group(self, interval_ms, encode)
        return group

    @property
    def valued_ms(self) -> int:
        """Return when the newest value was accepted, on the hub's clock. The channel must have a value."""
        assert self.newest is not None
        return self.newest.heard_ms

    def accept(self, publication: Publication, heard_ms: int, position: int = 0) -> bool:
        """Make `publication` the newest value. False: it is a repetition. A change of epoch is a new generation.

        `heard_ms` is the time of the hub's clock: see `Hub`. `position` is that of a value which is not written yet.
        """
        last = self.last
        value = Value(publication, heard_ms, position)
        if last is None or last.epoch != publication.epoch:
            self.generation += 1
            self.history.clear()
            # Before the first number of the first epoch there was nothing. What was before others is not known here.
            self._before = None if last is None and publication.seq == 1 else value
        elif publication.seq <= last.seq:
            return False
        self.last = publication
        self.last_heard_ms, self.heard_ms = publication.ts, heard_ms
        self.newest = value
        if self._snapshots:
            self._snapshots = {}
        if not self.options.history_messages:
            self._before = value
        else:
            if self.history and self.history[-1].publication.seq + 1 != publication.seq:
                self.history.clear()  # a replay from a history with a gap would have the gap too
                self._before = value
            self.history.append(value)
            self._trim(heard_ms)
        return True

    def update(self, encode: Encoder) -> bytes:
        """Return the newest value as an `update` frame. The channel must have a value."""
        assert self.newest is not None
        return self.newest.update(encode)

    def snapshot(self, encode: Encoder) -> bytes:
        """Return the newest value as a `snapshot` frame. The channel must have a value."""
        frame = self._snapshots.get(encode)
        if frame is None:
            assert self.last is not None
            frame = self._snapshots[encode] = encode(messages.snapshot(self.last))
        return frame

    def status(self, encode: Encoder) -> bytes:
        """Return a `status` frame: whether the channel is stale, and the time of its last sign of life."""
        return encode(messages.status(channel=self.name, stale=self.stale, since=self.last_heard_ms))

    def missed_since(self, epoch: str, seq: int, from_broker: Sequence[Publication] = ()) -> "Replay | None":
        """Return a replay of all values after `seq` of `epoch`. None: not all of them are known.

        `from_broker` is what the broker has after `seq`. It is used if the history does not reach back to `seq`.
        """
        last = self.last
        if last is None or last.epoch != epoch or seq > last.seq or self.options.mode is not Mode.STREAM:
            return None
        if seq == last.seq or self._reaches_back_to(seq):
            return Replay(self, seq)
        first = self.history[0].publication.seq if self.history else last.seq + 1
        known = {value.seq: value for value in from_broker if value.epoch == epoch}
        if first - seq - 1 > len(known):  # also bounds the range below: a client may name any `seq`
            return None
        older = [Value(known[number]) for number in range(seq + 1, first) if number in known]
        return Replay(self, seq, older) if len(older) == first - seq - 1 else None

    def missed_after(self, point: ResumePoint) -> "Replay | None":
        """Return a replay of all values that a client does not have. None: not all of them are known."""
        last = self.last
        if last is None or self.options.mode is not Mode.STREAM:
            return None
        self._trim(self.valued_ms)
        for value in reversed(self.history):
            if point.covers(value.position, value.publication):
                return Replay(self, value.publication.seq)
        before = self._before
        if not (
            point.is_of(last.epoch) if before is None else point.covers(before.position, before.publication)
        ):
            return None
        return Replay(self, self.history[0].publication.seq - 1 if self.history else last.seq)

    def value_after(self, seq: int) -> Value | None:
        """Return the value that follows `seq` in the history, which has no gap. None: the history does not have it."""
        index = seq + 1 - self.history[0].publication.seq if self.history else -1
        return self.history[index] if 0 <= index < len(self.history) else None

    def lacks_history(self, epoch: str, seq: int) -> bool:
        """Tell whether there were messages after `seq` of `epoch` that the history does not have. The broker may."""
        last = self.last
        is_earlier = last is not None and last.epoch == epoch and 0 <= seq < last.seq
        return is_earlier and self.options.mode is Mode.STREAM and not self._reaches_back_to(seq)

    def _reaches_back_to(self, seq: int) -> bool:
        self._trim(self.valued_ms)
        return bool(self.history) and self.history[0].publication.seq <= seq + 1

    def _trim(self, now_ms: int) -> None:
        history, options = self.history, self.options
        while len(history) > options.history_messages or (
            history and now_ms - history[0].heard_ms > options.history_ms
        ):
            self._before = history.popleft()


class Replay:
    """The values of a channel that a subscriber has missed, as a position in the channel's history.

    Values are read from the history when they are written to the subscriber, so a replay keeps no value in memory: a
    client can ask for a thousand messages of each of 256 channels in one frame. Only the broker's values are kept.
    """

    __slots__ = ("_older", "channel", "generation", "seq")

    def __init__(self, channel: Channel, seq: int, older: Iterable[Value] = ()) -> None:
        self.channel = channel
        self.generation = channel.generation  # `seq` has no meaning in another epoch
        self.seq = seq
        """The value that the subscriber has last."""
        self._older = deque(older)  # from the broker, from before the history

    @property
    def remaining(self) -> int:
        """How many values the subscriber still has to get, including those that came after the replay began."""
        assert self.channel.last is not None
        return self.channel.last.seq - self.seq

    def take(self, encode: Encoder, room: int) -> list[bytes]:
        """Return the next frames, until they have `room` bytes.

        There are fewer if the history does not keep the next value any longer, or if the channel has a new epoch.
        """
        frames: list[bytes] = []
        while room > 0 and self.generation == self.channel.generation:
            value = self._older.popleft() if self._older else self.channel.value_after(self.seq)
            if value is None:
                break
            self.seq = value.publication.seq
            frames.append(value.update(encode))
            room -= len(frames[-1])
        return frames


class QueuedFrame(NamedTuple):
    """A frame that waits in a group for the next flush. `number` counts all frames that were ever queued there.

    `value` is what is in it; None: it is a status.
    """

    number: int
    frame: bytes
    value: Value | None

    @property
    def publication(self) -> Publication | None:
        """The value's publication."""
        return None if self.value is None else self.value.publication


class Group:
    """An interval group: subscribers that share frames, and the frames that the next flush writes to them."""

    __slots__ = (
        "add_id",
        "channel",
        "encode",
        "flushed_generation",
        "frame_count",
        "interval_ms",
        "joining",
        "mark",
        "queue",
        "queued_generation",
        "subscribers",
    )

    def __init__(self, channel: Channel, interval_ms: int, encode: Encoder) -> None:
        self.channel = channel
        self.interval_ms = interval_ms
        self.encode = encode
        # Values of mode `latest` have no ids: the snapshot is their resume.
        is_stream = channel.options.mode is Mode.STREAM
        self.add_id = encode.with_id if is_stream and isinstance(encode, IdEncoder) else None
        # The generation that the subscribers know: that of the last value that was flushed.
        self.flushed_generation = channel.generation
        self.queued_generation = channel.generation  # that of the last value that was queued
        self.frame_count = 0
        self.queue: list[QueuedFrame] = []
        self.mark = Mark.at(channel.last)
        # Dicts, because they keep the order and remove in constant time. A subscriber's mark is where it entered. None:
        # it is too slow now, and gets the newest value later.
        self.subscribers: dict[Subscriber, Mark | None] = {}
        self.joining: dict[Subscriber, int] = {}

    def queue_value(self) -> None:
        """Queue the channel's newest value. In a group with an interval it replaces the value that is queued.

        A status that is queued there comes after the value: its subscribers may know no older one.
        """
        channel = self.channel
        has_status = False
        if self.interval_ms:
            has_status = any(queued.value is None for queued in self.queue)
            self.queue = []
        known = self.flushed_generation if self.interval_ms else self.queued_generation
        # An `update` does not name the epoch, so a client can't tell a new epoch from a seq that goes back.
        # Each epoch therefore begins with a snapshot.
        is_known = known == channel.generation
        frame = channel.update(self.encode) if is_known else channel.snapshot(self.encode)
        self._queue(frame, channel.newest)
        self.queued_generation = channel.generation
        if has_status:
            self.queue_status()

    def queue_status(self) -> None:
        """Queue a `status` frame. In a group with an interval it replaces the status that is queued."""
        if self.interval_ms:
            self.queue = [queued for queued in self.queue if queued.value is not None]
        self._queue(self.channel.status(self.encode), None)

    def drain(self) -> tuple[int, list[QueuedFrame]]:
        """Empty the queue and return its frames, with the generation that the subscribers knew before them."""
        before, self.flushed_generation = self.flushed_generation, self.queued_generation
        queue, self.queue = self.queue, []
        self.mark = self.mark.after(queued.publication for queued in queue)
        return before, queue

    def join(self, subscriber: "Subscriber") -> int:
        """Add a subscriber that has the newest value. Returns how many queued values it will not get."""
        if self.queue:
            self.subscribers.pop(subscriber, None)
            self.joining[subscriber] = self.frame_count
        else:
            self.subscribers[subscriber] = self.mark
        return sum(queued.value is not None for queued in self.queue)

    def remove(self, subscriber: "Subscriber") -> Mark | None:
        """Remove a subscriber. Return where it entered, None if it is not in this group or too slow for it."""
        self.joining.pop(subscriber, None)
        return self.subscribers.pop(subscriber, None)

    def delete_if_empty(self) -> None:
        """Delete the group from its channel if it has no subscriber and nothing queued."""
        if not self.subscribers and not self.joining and not self.queue:
            self.channel.groups.pop((self.interval_ms, self.encode), None)

    def _queue(self, frame: bytes, value: Value | None) -> None:
        self.frame_count += 1
        self.queue.append(QueuedFrame(self.frame_count, frame, value))
