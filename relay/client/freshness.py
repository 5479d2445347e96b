"""Which channels are live and which are stale: from the relay's frames, and from the state of the link.

The relay calls a channel stale when its publisher is silent. It can't report its own link: the client calls all
channels stale after 1.5 silent heartbeat intervals, and at once when the connection is lost. On a new connection a
channel is live again only when its value has arrived there, or is known to be the value that the caller has. Otherwise
an old price would look fresh for the time of a round trip.

No input or output happens here. Times are the server's clock, because this computer's clock may be minutes off.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from relay.client.frames import Acknowledged, Heartbeat, ServerFrame, Snapshot, Status, Update, Welcome

LIVE, STALE = "live", "stale"


STEP_BACK_MS = 1000
"""Milliseconds by which times that only grow must go down, so that the server's clock was set back. Relays that work
together may differ by less."""


class ServerClock:
    """The server's clock, estimated from the frame that travelled fastest.

    A server's clock can be set back. The estimate then begins again. The evidence is a heartbeat that is older than any
    frame before it, or a later update of a channel that is older than an earlier one. A frame that was only slow on its
    way is neither.
    """

    def __init__(self) -> None:
        self._lead_s = -math.inf
        self._latest_ms = 0
        self._newest: dict[str, tuple[int, int]] = {}  # seq and time of each channel's newest value

    def read(self, frame: ServerFrame, now: float) -> None:
        """Read the time in a frame that was received at `now`, in seconds of any steady clock."""
        match frame:
            case Welcome():  # it may be another server
                self._begin()
                self._newest = {}
            case Update():
                seq, ts = self._newest.get(frame.channel, (frame.seq, 0))
                if frame.seq > seq and frame.ts < ts - STEP_BACK_MS:
                    self._begin()
                if frame.seq >= seq:
                    self._newest[frame.channel] = frame.seq, frame.ts
            case Snapshot():
                self._newest[frame.channel] = frame.seq, frame.ts
            case Heartbeat():
                if frame.ts < self._latest_ms - STEP_BACK_MS:
                    self._begin()
            case _:
                return
        self._lead_s = max(self._lead_s, frame.ts / 1000 - now)
        self._latest_ms = max(self._latest_ms, frame.ts)

    def _begin(self) -> None:
        self._lead_s, self._latest_ms = -math.inf, 0

    def ms(self, now: float) -> int | None:
        """Return the server's time at `now` in Unix milliseconds; None before the first welcome."""
        return None if self._lead_s == -math.inf else int((now + self._lead_s) * 1000)


@dataclass(slots=True)
class _Channel:
    told: str
    """The state that the caller knows."""
    server: str = LIVE
    """The state that the relay reported last."""
    epoch: str = ""
    awaited_seq: int = -1
    """The seq in this connection's ack. Until it arrives, the caller's value may be old."""
    is_here: bool = True
    """Whether the caller's value is known to be this connection's."""
    is_cut: bool = False
    """Whether the channel was called stale because of the link."""


class Freshness:
    """The state of every channel that was acknowledged or had a value."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._is_heard = True

    def acknowledged(self, item: Acknowledged, *, is_current: bool, now_ms: int | None) -> Status | None:
        """Take over the state in an exact channel's ack. `is_current`: the caller has the value that it names."""
        state, epoch, seq = item.state or LIVE, item.epoch or "", item.seq or 0
        channel = self._channels.get(item.channel)
        if channel is None:  # the caller gets the ack itself
            self._channels[item.channel] = _Channel(state, server=state, epoch=epoch, awaited_seq=seq)
            return None
        channel.server, channel.epoch, channel.awaited_seq = state, epoch, seq
        channel.is_here = channel.is_here or is_current
        return self._tell(item.channel, channel, now_ms)

    def valued(self, value: Snapshot | Update, *, now_ms: int | None) -> Status | None:
        """Note a value that arrived, new or repeated."""
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
        """Take over the state that the relay reports; returns the event for the caller, if the state changed."""
        channel = self._channels.setdefault(status.channel, _Channel(LIVE))
        channel.server = status.state
        told = self._tell(status.channel, channel, now_ms)
        return status if told is not None and told.state == status.state else told

    def heard(self, now_ms: int | None) -> list[Status]:
        """Note that a frame came; returns the channels that are live again for it."""
        if self._is_heard:
            return []
        self._is_heard = True
        return self._tell_all(now_ms)

    def silent(self, since_ms: int | None) -> list[Status]:
        """Note that no frame came since `since_ms`, for longer than the protocol allows."""
        self._is_heard = False
        return self._tell_all(since_ms)

    def lost(self, since_ms: int | None) -> list[Status]:
        """Note that the connection is gone: no value is known to be current until the next one confirms it."""
        for channel in self._channels.values():
            channel.is_here = False
        return self._tell_all(since_ms)

    def forget(self, is_gone: Callable[[str], bool]) -> None:
        """Forget these channels."""
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
