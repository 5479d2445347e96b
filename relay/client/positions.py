"""Which values a subscriber has queued for its caller: none twice, and none of a `stream` missing unnoticed.

Brokers deliver at least once, and a reconnect begins with the current values, so repeats are ordinary. Within one
`epoch` (the life of the relay's memory) `seq` only grows. A new epoch begins with a snapshot and counts from 1 again.
Only snapshots and acks name the epoch: an update belongs to the epoch of the frame before it.

On a `latest` channel a jump in `seq` has no meaning, because each value is complete. On a `stream` channel messages
are missing, and they are requested once. The channel is held until the relay answers: values that arrive before the
answer come again, in order, after the missing ones.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from relay.client.events import Gap
from relay.client.frames import Snapshot, Subscribed, Update
from relay.client.receipts import Position
from relay.client.subscriptions import EpochSeq
from relay.core.errors import ConfigurationError
from relay.core.patterns import covers, is_channel

ANY = -1
"""In place of a seq: any next value is new."""


class Arrival(Enum):
    """What an arriving value means to a subscriber."""

    NEW = auto()
    REPEAT = auto()
    """It was handed out before."""
    HELD = auto()
    """It will come again, after the missing ones."""
    JUMP = auto()
    """Messages before it are missing: resume the channel and hold it."""


@dataclass(slots=True)
class _Seen:
    """The newest handed-out value of a channel. `jumped_at`: the seq after which missing messages were requested."""

    epoch: str
    seq: int
    is_stream: bool
    is_held: bool = False
    jumped_at: int = ANY


class Positions:
    """The newest epoch and seq of every channel, in this run or in an earlier one (`since`).

    Raises:
        ConfigurationError: if `since` has a name that is no channel, or a position that is not possible.
    """

    def __init__(self, since: Mapping[str, Position] | None = None) -> None:
        self._seen: dict[str, _Seen] = {}
        self._streams: set[str] = set()  # names and patterns that were acknowledged as streams
        for channel, at in (since or {}).items():
            if not is_channel(channel) or at.channel != channel or not at.epoch or at.seq < 0:
                raise ConfigurationError(
                    f"since: {at!r} is not a position of channel {channel!r}; use one from `Subscriber.positions`."
                )
            self._seen[channel] = _Seen(at.epoch, at.seq, is_stream=True)

    def resumable(self) -> dict[str, EpochSeq]:
        """Return the position from which each stream channel can be resumed."""
        return {
            channel: (seen.epoch, seen.seq)
            for channel, seen in self._seen.items()
            if seen.is_stream and seen.epoch and seen.seq > ANY
        }

    def is_stream(self, channel: str) -> bool:
        """Tell whether each message of the channel counts. A channel that was never named is a `latest` one."""
        seen = self._seen.get(channel)
        return self._is_stream(channel) if seen is None else seen.is_stream

    def at(self, channel: str) -> EpochSeq | None:
        """Return the position of the newest value; None if it can't be resumed from."""
        seen = self._seen.get(channel)
        return None if seen is None or not seen.epoch or seen.seq == ANY else (seen.epoch, seen.seq)

    def has(self, channel: str, epoch: str, seq: int) -> bool:
        """Tell whether this value of the channel, or a newer one of its epoch, was handed out."""
        seen = self._seen.get(channel)
        return seen is not None and seen.epoch == epoch and seen.seq >= seq

    def hold(self, channels: Collection[str]) -> None:
        """Hand out no value of these channels until the ack of their resumption, see `acknowledge`."""
        for channel in channels:
            self._seen[channel].is_held = True

    def classify(self, value: Snapshot | Update) -> Arrival | Gap:
        """Return what `value` is, and remember it if it is new.

        After a `Gap`, hand the gap out and classify the value again: it is new then.
        """
        seen = self._seen.get(value.channel)
        if seen is None:
            seen = self._seen[value.channel] = _Seen("", ANY, is_stream=self._is_stream(value.channel))
        if seen.is_held:
            return Arrival.HELD
        if isinstance(value, Snapshot) and value.epoch != seen.epoch:
            if seen.is_stream and seen.epoch and seen.seq > 0:
                return self._lost(value.channel, seen, value.epoch)
            seen.epoch = value.epoch
        elif value.seq <= seen.seq:
            return Arrival.REPEAT
        elif seen.is_stream and seen.seq > ANY and value.seq > seen.seq + 1:
            if seen.jumped_at == seen.seq or not seen.epoch:  # requested without success, or not requestable
                return self._lost(value.channel, seen, seen.epoch)
            seen.jumped_at = seen.seq
            return Arrival.JUMP
        seen.seq = value.seq
        return Arrival.NEW

    def acknowledge(self, frame: Subscribed, resumed: Collection[str]) -> list[Gap]:
        """Take over epochs and modes. `resumed`: the channels for which this frame's request had positions.

        Returns the gaps of those that could not be resumed. An ack's seq is not taken over, because its value has
        not arrived yet.
        """
        gaps: list[Gap] = []
        for item in frame.channels:
            if item.mode == "stream":
                self._streams.add(item.channel)
            if item.epoch is None:  # a pattern
                continue
            seen = self._seen.get(item.channel)
            if seen is None:
                self._seen[item.channel] = _Seen(item.epoch, ANY, is_stream=item.mode == "stream")
                continue
            seen.is_stream = item.mode == "stream"
            if item.channel in resumed:
                seen.is_held = False
                if seen.is_stream and not item.recovered:
                    gaps.append(self._lost(item.channel, seen, item.epoch))
                    continue
            if not seen.is_stream and seen.epoch != item.epoch:
                seen.epoch, seen.seq = item.epoch, ANY
        for rejected in frame.rejected:
            seen = self._seen.get(rejected.channel)
            if seen is not None and seen.is_held and rejected.channel in resumed:
                seen.is_held = False
                gaps.append(self._lost(rejected.channel, seen, ""))
        return gaps

    def release(self) -> None:
        """Hold no channel any longer: the connection that was to answer is gone."""
        for seen in self._seen.values():
            seen.is_held = False
            seen.jumped_at = ANY

    def forget(self, is_gone: Callable[[str], bool]) -> None:
        """Forget these channels; subscribed again, they begin with a snapshot."""
        self._seen = {channel: seen for channel, seen in self._seen.items() if not is_gone(channel)}

    def _is_stream(self, channel: str) -> bool:
        return channel in self._streams or any(covers(name, channel) for name in self._streams)

    def _lost(self, channel: str, seen: _Seen, epoch: str) -> Gap:
        """Give up the messages after the channel's position; it goes on with the next value of `epoch`."""
        gap = Gap(channel=channel, epoch=seen.epoch, seq=seen.seq)
        seen.epoch, seen.seq, seen.jumped_at = epoch, ANY, ANY
        return gap
