"""Liveness in both directions: heartbeats to quiet subscribers, and channels whose publisher is silent.

A client must be able to tell a quiet connection from a dead one. A subscriber to which nothing was written for
some time therefore gets a heartbeat. A channel whose publisher gives no sign of life becomes stale, and its
subscribers are told.
"""

from collections.abc import Callable, Collection, Iterator

from relay.core.channels import Channel, Encoder, IdEncoder
from relay.core.subscribers import Subscriber

BEATS_PER_HEARTBEAT = 4
"""A heartbeat goes out after so many beats without any write. A client then hears nothing for at most 5/4 of its
heartbeat interval. It calls prices stale after 6/4."""

HEARTBEATS_PER_SLICE = 250
"""Heartbeats in one turn of the event loop, about 2 ms. When a channel with 15,000 subscribers goes quiet, all their
heartbeats are due in the same beat: written at once, they would hold the loop for 0.1 s."""


def send_heartbeats(
    subscribers: Collection[Subscriber], message: bytes, *, beat: int, position: bytes = b""
) -> Iterator[None]:
    """Write the heartbeat `message` to subscribers without a write in the last `BEATS_PER_HEARTBEAT` beats.

    Stops after each slice until the iterator is advanced. Subscribers that leave or are written to between two slices
    are skipped. A subscriber with pending bytes gets none: its client has data to read.

    `position` is the id of subscribers that have got everything at the first step (`relay.core.positions`).
    """
    due = beat - BEATS_PER_HEARTBEAT
    frames: dict[Encoder, bytes] = {}
    quiet = [subscriber for subscriber in subscribers if subscriber.last_beat <= due]
    for number, subscriber in enumerate(quiet, start=1):
        if subscriber.last_beat <= due and subscriber in subscribers and not subscriber.pending():
            encode = subscriber.encode
            frame = frames.get(encode)
            if frame is None:
                frame = encode(message)
                if position and isinstance(encode, IdEncoder):
                    frame = encode.with_id(position, frame)
                frames[encode] = frame
            if position and subscriber.backlog is not None:
                frame = encode(message)
            subscriber.write(frame)
            subscriber.last_beat = beat
            subscriber.bytes += len(frame)
        if not number % HEARTBEATS_PER_SLICE:
            yield


class SilenceDetector:
    """Sets `Channel.stale` for channels that have a value."""

    def __init__(self) -> None:
        # silence_ms -> channels that are not stale, ordered by their last sign of life. A search for stale channels
        # stops at the first one that is not stale.
        self._live: dict[int, dict[Channel, None]] = {}

    def heard(self, channel: Channel) -> bool:
        """Record a sign of life of a channel's publisher. True: the channel was stale until now."""
        was_stale, channel.stale = channel.stale, False
        live = self._live.setdefault(channel.options.silence_ms, {})
        live.pop(channel, None)
        live[channel] = None
        return was_stale

    def forget(self, channel: Channel) -> None:
        """Forget a removed channel."""
        self._live.get(channel.options.silence_ms, {}).pop(channel, None)

    def mark_all(self, wanted: Callable[[str], bool]) -> Iterator[Channel]:
        """Mark all channels as stale whose name is wanted, and return those that were not."""
        for channels in self._live.values():
            for channel in [channel for channel in channels if wanted(channel.name)]:
                del channels[channel]
                channel.stale = channel.was_stale = True
                yield channel

    def find_stale(self, *, now_ms: int) -> Iterator[Channel]:
        """Mark channels as stale that were silent for longer than their `silence_ms`, and return them.

        `now_ms` is on the hub's clock, which never goes back. Otherwise one channel that was heard in the future would
        stop the search for all channels after it.
        """
        for silence_ms, channels in self._live.items():
            while channels:
                channel = next(iter(channels))
                if now_ms - channel.heard_ms <= silence_ms:
                    break
                del channels[channel]
                channel.stale = channel.was_stale = True
                yield channel
