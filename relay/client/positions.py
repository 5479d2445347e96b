"""Which values a subscriber has handed out: none twice, and on `stream` channels none left out unnoticed.

Brokers deliver at least once and a reconnect begins with the values as they stand, so repeats are ordinary.
Within one `epoch` (the sequencer's life) `seq` only grows; a new epoch begins with a snapshot and counts from
1 again. Only snapshots and acks name the epoch: an update belongs to the one before it.

On a `latest` channel a jump in `seq` means nothing, because each value is whole. On a `stream` channel something
is missing, and the relay is asked for it once. Until its answer the channel is held: what comes of it meanwhile
comes again, in order, behind what was missed.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from relay.client.asks import At
from relay.client.events import Gap
from relay.client.frames import Snapshot, Subscribed, Update
from relay.client.receipts import Position
from relay.core.errors import ConfigurationError
from relay.core.patterns import covers, is_channel

ANY = -1
"""In place of a seq: whatever comes next is new."""


class Verdict(Enum):
    """What a value is to a subscriber."""

    NEW = auto()
    REPEAT = auto()
    """It was handed out before."""
    HELD = auto()
    """It will come again, behind what was missed."""
    JUMP = auto()
    """Something before it is missing: resume, with this channel held."""


@dataclass(slots=True)
class _Seen:
    """The newest value of a channel that was handed out. `jumped_at`: the seq behind which a gap was asked for."""

    epoch: str
    seq: int
    is_stream: bool
    is_held: bool = False
    jumped_at: int = ANY


class Positions:
    """The newest epoch and seq of every channel that was seen, or was seen by an earlier run (`since`).

    Raises:
        ConfigurationError: if `since` names what can't be a channel, or a position that can't be one.
    """

    def __init__(self, since: Mapping[str, Position] | None = None) -> None:
        self._seen: dict[str, _Seen] = {}
        self._streams: set[str] = set()  # names and patterns that were acknowledged as streams
        for channel, at in (since or {}).items():
            if not is_channel(channel) or at.channel != channel or not at.epoch or at.seq < 0:
                raise ConfigurationError(
                    f"{channel!r}: {at!r} is no position to go on from; `Subscriber.positions` has those that are."
                )
            self._seen[channel] = _Seen(at.epoch, at.seq, is_stream=True)

    def resumable(self) -> dict[str, At]:
        """Return where each stream channel can be resumed."""
        return {
            channel: (seen.epoch, seen.seq)
            for channel, seen in self._seen.items()
            if seen.is_stream and seen.epoch and seen.seq > ANY
        }

    def has(self, channel: str, epoch: str, seq: int) -> bool:
        """Tell whether this value of the channel, or a newer one of its epoch, was handed out."""
        seen = self._seen.get(channel)
        return seen is not None and seen.epoch == epoch and seen.seq >= seq

    def hold(self, channels: Collection[str]) -> None:
        """Let no value of these channels through until the ack of their resumption, see `acknowledge`."""
        for channel in channels:
            self._seen[channel].is_held = True

    def take(self, value: Snapshot | Update) -> Verdict | Gap:
        """Tell what `value` is, and remember it if it is new.

        A `Gap` is to be handed out before it: take the value again after that, and it is new.
        """
        seen = self._seen.get(value.channel)
        if seen is None:
            seen = self._seen[value.channel] = _Seen("", ANY, is_stream=self._is_stream(value.channel))
        if seen.is_held:
            return Verdict.HELD
        if isinstance(value, Snapshot) and value.epoch != seen.epoch:
            if seen.is_stream and seen.epoch and seen.seq > 0:
                return self._lost(value.channel, seen, value.epoch)
            seen.epoch = value.epoch
        elif value.seq <= seen.seq:
            return Verdict.REPEAT
        elif seen.is_stream and seen.seq > ANY and value.seq > seen.seq + 1:
            if seen.jumped_at == seen.seq or not seen.epoch:  # was asked for in vain, or can't be
                return self._lost(value.channel, seen, seen.epoch)
            seen.jumped_at = seen.seq
            return Verdict.JUMP
        seen.seq = value.seq
        return Verdict.NEW

    def acknowledge(self, frame: Subscribed, resumed: Collection[str]) -> list[Gap]:
        """Take over epochs and modes; `resumed` are the channels that this frame's request had positions for.

        Returns the gaps of those that could not be resumed. An ack's seq is not taken over: the value itself is
        still to come.
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
        """Let go of what is held: the connection that was asked is gone."""
        for seen in self._seen.values():
            seen.is_held = False
            seen.jumped_at = ANY

    def forget(self, is_gone: Callable[[str], bool]) -> None:
        """Forget the channels that nobody wants any more; subscribed again, they begin with a snapshot."""
        self._seen = {channel: seen for channel, seen in self._seen.items() if not is_gone(channel)}

    def _is_stream(self, channel: str) -> bool:
        return channel in self._streams or any(covers(name, channel) for name in self._streams)

    def _lost(self, channel: str, seen: _Seen, epoch: str) -> Gap:
        """Give up what came after the channel's position; it goes on with the next value, of `epoch`."""
        gap = Gap(channel=channel, epoch=seen.epoch, seq=seen.seq)
        seen.epoch, seen.seq, seen.jumped_at = epoch, ANY, ANY
        return gap
