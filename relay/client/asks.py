"""The frames that ask the relay for what a subscriber wants, within the relay's bounds for a frame.

Resuming a `stream` channel has an order that matters. The relay looks at `since` only while a channel is not
subscribed yet, and only under the channel's exact name. So the exact names go first, each with the position
behind which it goes on; a pattern that covers them comes after them and then brings no second beginning; and
at the end the exact names that nobody wanted as such are given back, which leaves the pattern in charge.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from relay.core.patterns import covers

FRAME_CHANNELS = 200
"""200 names of 64 bytes fit into the relay's 16 KiB for a frame, and into its 256 channels."""
RESUME_CHANNELS = 60
"""With a position the name stands in the frame twice, an epoch and a number beside it: at most 260 bytes."""

At = tuple[str, int]
"""A position: epoch and seq."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One frame to be sent. `is_ours`: the answer is for the client alone, because nobody asked for that."""

    kind: Literal["subscribe", "unsubscribe"]
    names: Sequence[str]
    interval_ms: int = 0
    since: Mapping[str, At] = field(default_factory=dict)
    is_ours: bool = False

    def members(self) -> dict[str, Any]:
        """Return the frame's members but for its id."""
        frame: dict[str, Any] = {"type": self.kind, "channels": list(self.names)}
        if self.kind == "subscribe":
            frame["interval_ms"] = self.interval_ms
        if self.since:
            frame["since"] = {name: {"epoch": epoch, "seq": seq} for name, (epoch, seq) in self.since.items()}
        return frame


def asks_for(wanted: Mapping[str, int], positions: Mapping[str, At], *, again: bool) -> list[Ask]:
    """Return the frames that subscribe to `wanted` (name to interval), resuming at `positions`.

    `again`: the relay may have them subscribed already, and would then not look at `since`; what is to be
    resumed is unsubscribed first. Of `positions` only those count that `wanted` covers.
    """
    intervals = {channel: interval for channel in positions if (interval := _interval(channel, wanted)) >= 0}
    extra = [channel for channel in intervals if channel not in wanted]
    asks: list[Ask] = []
    if again:
        beginning = [name for name in wanted if _covers_any(name, intervals)]
        asks += [_unsubscribe(part) for part in parts_of([*beginning, *extra], FRAME_CHANNELS)]
    for interval_ms, names in _by_interval(intervals):
        for part in parts_of(names, RESUME_CHANNELS):
            since = {name: positions[name] for name in part}
            asks.append(Ask(kind="subscribe", names=part, interval_ms=interval_ms, since=since))
    rest = {name: interval for name, interval in wanted.items() if name not in intervals}
    for interval_ms, names in _by_interval(rest):
        asks += [
            Ask(kind="subscribe", names=part, interval_ms=interval_ms)
            for part in parts_of(names, FRAME_CHANNELS)
        ]
    return asks + [_unsubscribe(part) for part in parts_of(extra, FRAME_CHANNELS)]


def parts_of(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Cut `names` into lists of at most `size`."""
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _unsubscribe(names: Sequence[str]) -> Ask:
    return Ask(kind="unsubscribe", names=names, is_ours=True)


def _interval(channel: str, wanted: Mapping[str, int]) -> int:
    """Return the interval at which a channel is wanted, by its name or a pattern; -1 if it is not."""
    if channel in wanted:
        return wanted[channel]
    return min((interval for name, interval in wanted.items() if covers(name, channel)), default=-1)


def _covers_any(name: str, channels: Collection[str]) -> bool:
    return name in channels or any(covers(name, channel) for channel in channels)


def _by_interval(names: Mapping[str, int]) -> list[tuple[int, list[str]]]:
    groups: dict[int, list[str]] = {}
    for name, interval_ms in names.items():
        groups.setdefault(interval_ms, []).append(name)
    return list(groups.items())
