"""Which channels may be believed: what the relay says of each, and what only this end of the link can know.

The relay calls a channel stale when its publisher falls silent. It can't say so about its own link: there the
client judges, after 1.5 silent heartbeats and at once when the connection is lost. Back on a connection, a
channel is live again only when its value there has arrived, or is known to be the one at hand: an old price must
not look fresh for the time of a round trip.

Pure: told what came, it says what to tell the caller. Times are the server's clock, for this computer's clock
may be minutes off.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from relay.client.frames import Acknowledged, Heartbeat, ServerFrame, Snapshot, Status, Update, Welcome

LIVE, STALE = "live", "stale"


class ServerClock:
    """The server's clock, as far as the fastest frame so far tells it."""

    def __init__(self) -> None:
        self._lead_s = -math.inf

    def read(self, frame: ServerFrame, now: float) -> None:
        """Learn from a frame that was received at `now`, in seconds of any steady clock."""
        match frame:
            case Welcome():
                self._lead_s = frame.ts / 1000 - now  # perhaps another server
            case Snapshot() | Update() | Heartbeat():
                self._lead_s = max(self._lead_s, frame.ts / 1000 - now)
            case _:
                return

    def ms(self, now: float) -> int | None:
        """Return the server's time at `now` in Unix milliseconds; None before the first welcome."""
        return None if self._lead_s == -math.inf else int((now + self._lead_s) * 1000)


@dataclass(slots=True)
class _Channel:
    told: str
    """What the caller believes."""
    server: str = LIVE
    """What the relay said last."""
    epoch: str = ""
    awaited_seq: int = -1
    """The value that this connection's ack promised; until it is there the one at hand may be old."""
    is_here: bool = True
    """Whether the value at hand is that of this connection."""
    is_cut: bool = False
    """Whether it was called stale for the link's sake."""


class Freshness:
    """The state of every channel that was acknowledged, or had a value."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._is_heard = True

    def acknowledged(self, item: Acknowledged, *, is_current: bool, now_ms: int | None) -> Status | None:
        """Take the state from an exact channel's ack; `is_current`: the value at hand is the one it names."""
        state, epoch, seq = item.state or LIVE, item.epoch or "", item.seq or 0
        channel = self._channels.get(item.channel)
        if channel is None:  # the ack itself tells the caller
            self._channels[item.channel] = _Channel(state, server=state, epoch=epoch, awaited_seq=seq)
            return None
        channel.server, channel.epoch, channel.awaited_seq = state, epoch, seq
        channel.is_here = channel.is_here or is_current
        return self._tell(item.channel, channel, now_ms)

    def valued(self, value: Snapshot | Update, *, now_ms: int | None) -> Status | None:
        """Take note of a value that came, new or repeated."""
        channel = self._channels.get(value.channel)
        if channel is None:
            epoch = value.epoch if isinstance(value, Snapshot) else ""
            self._channels[value.channel] = _Channel(LIVE, epoch=epoch, awaited_seq=value.seq)
            return None
        if isinstance(value, Snapshot) and value.epoch != channel.epoch:
            channel.epoch, channel.awaited_seq, channel.server = value.epoch, value.seq, LIVE
        elif isinstance(value, Snapshot) and value.seq > channel.awaited_seq:
            channel.awaited_seq, channel.server = value.seq, LIVE
        channel.is_here = channel.is_here or value.seq >= channel.awaited_seq
        return self._tell(value.channel, channel, now_ms)

    def said(self, status: Status, *, now_ms: int | None) -> Status | None:
        """Take the relay's word for a channel; returns what the caller should hear of it, if anything."""
        channel = self._channels.setdefault(status.channel, _Channel(LIVE))
        channel.server = status.state
        told = self._tell(status.channel, channel, now_ms)
        return status if told is not None and told.state == status.state else told

    def heard(self, now_ms: int | None) -> list[Status]:
        """The link gave a sign of life."""
        if self._is_heard:
            return []
        self._is_heard = True
        return self._tell_all(now_ms)

    def silent(self, since_ms: int | None) -> list[Status]:
        """Nothing was heard since `since_ms`, for longer than it should be."""
        self._is_heard = False
        return self._tell_all(since_ms)

    def lost(self, since_ms: int | None) -> list[Status]:
        """The connection is gone; nothing is known to be current until the next one says so."""
        for channel in self._channels.values():
            channel.is_here = False
        return self._tell_all(since_ms)

    def forget(self, is_gone: Callable[[str], bool]) -> None:
        """Forget channels that nobody wants any more."""
        self._channels = {name: channel for name, channel in self._channels.items() if not is_gone(name)}

    def _tell_all(self, since_ms: int | None) -> list[Status]:
        told = [self._tell(name, channel, since_ms) for name, channel in self._channels.items()]
        return [status for status in told if status is not None]

    def _tell(self, name: str, channel: _Channel, since_ms: int | None) -> Status | None:
        is_cut = not (self._is_heard and channel.is_here)
        state = STALE if is_cut or channel.server == STALE else LIVE
        by_link, channel.is_cut = is_cut or channel.is_cut, is_cut
        if state == channel.told:
            return None
        channel.told = state
        return Status(channel=name, state=state, since=since_ms, cause="link" if by_link else "publisher")
