"""Which channels a subscriber wants, and the frames that request them on a connection.

`DesiredSubscriptions` outlives a connection: on the next one everything is requested again. The first names go into the
URL. Their values then follow the welcome without another round trip, and the relay does not report a connection
without subscriptions. The other names are sent in frames: names that have no room in the URL, that have another
interval, or that are resumed (the URL has no parameter for a position).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import quote

from relay.core.errors import ConfigurationError
from relay.core.patterns import check_pattern, covers

INTERVALS_MS = (0, 50, 100, 250, 500, 1000)
URL_CHARS = 1500
"""Proxies refuse long request lines: 8000 characters is a common bound, and the token may take 4096 of them."""
FRAME_CHANNELS = 200
"""Names in a frame. The relay's bounds are 16 KiB and 256 channels; 200 names of 64 bytes fit into both."""
RESUME_CHANNELS = 60
"""Names with a position in a frame: each takes up to 260 bytes (the name twice, an epoch, a number)."""

EpochSeq = tuple[str, int]
"""A position in a known channel: epoch and seq."""


class DesiredSubscriptions:
    """The channels and patterns that a subscriber wants, with their intervals in milliseconds."""

    def __init__(self) -> None:
        self._wanted: dict[str, int] = {}

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Return subscriptions to `names`, which are known to be valid."""
        subscriptions = cls()
        subscriptions._wanted = dict.fromkeys(names, 0)
        return subscriptions

    @property
    def names(self) -> Collection[str]:
        """The channels and patterns."""
        return self._wanted.keys()

    @property
    def has_interval(self) -> bool:
        """Whether a channel is wanted with an interval. Only what an interval collects is compressed."""
        return any(self._wanted.values())

    def add(self, names: Iterable[str], interval_ms: int) -> None:
        """Add `names`.

        Raises:
            ConfigurationError: if the interval is not one of `INTERVALS_MS`.
            MalformedError: if a name is neither a channel nor a pattern; then none is added.
        """
        if interval_ms not in INTERVALS_MS:
            known = ", ".join(map(str, INTERVALS_MS))
            raise ConfigurationError(f"interval_ms must be one of {known}, not {interval_ms}.")
        self._wanted |= {check_pattern(name): interval_ms for name in names}

    def remove(self, names: Iterable[str]) -> list[str]:
        """Remove `names`; returns those that were there."""
        return [name for name in names if self._wanted.pop(name, None) is not None]

    def covers(self, channel: str) -> bool:
        """Tell whether this exact channel is wanted, by its name or by a pattern."""
        return channel in self._wanted or any(covers(pattern, channel) for pattern in self._wanted)

    def covering(self, channel: str) -> dict[str, int]:
        """Return the names and patterns that match this exact channel, with their intervals."""
        return {name: interval for name, interval in self._wanted.items() if covers(name, channel)}

    def query(self, resumable: Collection[str] = ()) -> tuple[str, dict[str, int]]:
        """Return the URL's query for the first names ("" for none), and these names with their intervals.

        Names that match one of the `resumable` channels are left out: the URL can't carry a position.
        """
        able = {
            name: interval
            for name, interval in self._wanted.items()
            if name not in resumable and not any(covers(name, channel) for channel in resumable)
        }
        interval_ms = next(iter(able.values()), 0)
        asked: dict[str, int] = {}
        quoted, length = [], 0
        for name in (name for name, interval in able.items() if interval == interval_ms):
            text = quote(name, safe="")
            length += len(text) + 1
            if length > URL_CHARS:
                break
            quoted.append(text)
            asked[name] = interval_ms
        if not quoted:
            return "", asked
        return f"channels={','.join(quoted)}&interval_ms={interval_ms}", asked

    def missing(self, asked: Mapping[str, int]) -> dict[str, int]:
        """Return the names that are wanted and were not `asked` for, with their intervals in milliseconds."""
        return {name: interval for name, interval in self._wanted.items() if asked.get(name) != interval}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRequest:
    """One frame to be sent. `is_internal`: the caller did not ask for it, so the answer is not handed out."""

    kind: Literal["subscribe", "unsubscribe"]
    names: Sequence[str]
    interval_ms: int = 0
    since: Mapping[str, EpochSeq] = field(default_factory=dict)
    is_internal: bool = False

    def members(self) -> dict[str, Any]:
        """Return the frame's members without its id."""
        frame: dict[str, Any] = {"type": self.kind, "channels": list(self.names)}
        if self.kind == "subscribe":
            frame["interval_ms"] = self.interval_ms
        if self.since:
            frame["since"] = {name: {"epoch": epoch, "seq": seq} for name, (epoch, seq) in self.since.items()}
        return frame


def subscription_requests(
    wanted: Mapping[str, int], positions: Mapping[str, EpochSeq], *, again: bool
) -> list[SubscriptionRequest]:
    """Return the frames that subscribe to `wanted` (name to interval), resuming at `positions`.

    The order matters. The relay looks at `since` only while a channel is not subscribed yet, and only under the
    channel's exact name. So the exact names go first, each with its position. A pattern that covers them follows, and
    then does not start them a second time. At the end the exact names that nobody wanted as such are unsubscribed,
    which leaves the pattern in charge.

    `again`: the relay may have them subscribed already, and would then ignore `since`; the channels to be resumed are
    unsubscribed first. Positions of channels that `wanted` does not cover are ignored.
    """
    intervals = {channel: interval for channel in positions if (interval := _interval(channel, wanted)) >= 0}
    extra = [channel for channel in intervals if channel not in wanted]
    requests: list[SubscriptionRequest] = []
    if again:
        beginning = [name for name in wanted if _covers_any(name, intervals)]
        requests += [_unsubscribe(part) for part in parts_of([*beginning, *extra], FRAME_CHANNELS)]
    for interval_ms, names in _by_interval(intervals):
        for part in parts_of(names, RESUME_CHANNELS):
            since = {name: positions[name] for name in part}
            requests.append(
                SubscriptionRequest(kind="subscribe", names=part, interval_ms=interval_ms, since=since)
            )
    rest = {name: interval for name, interval in wanted.items() if name not in intervals}
    for interval_ms, names in _by_interval(rest):
        requests += [
            SubscriptionRequest(kind="subscribe", names=part, interval_ms=interval_ms)
            for part in parts_of(names, FRAME_CHANNELS)
        ]
    return requests + [_unsubscribe(part) for part in parts_of(extra, FRAME_CHANNELS)]


def parts_of(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Cut `names` into lists of at most `size`."""
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _unsubscribe(names: Sequence[str]) -> SubscriptionRequest:
    return SubscriptionRequest(kind="unsubscribe", names=names, is_internal=True)


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
