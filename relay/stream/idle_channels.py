"""Channels that nobody uses any longer are removed: with expiring symbols, their number would otherwise only grow.

A channel is idle if no client has it by its exact name, and if no publisher has sent a value or a sign of life for
`channels.idle_s`. Clients that have it by a pattern don't count, because a page with `prices.>` would keep each channel
that ever was. The time is measured on the monotonic clock: a clock that is set forward removes nothing.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol

import anyio
import anyio.lowlevel
import structlog

from relay.broker.base import Position
from relay.core.channels import Channel
from relay.core.errors import UnavailableError
from relay.core.hub import Hub
from relay.core.publications import Publication

LOOKS: int = 8
"""Looks within `idle_s`. A channel is removed at most an eighth of the time late."""
LOOK_EVERY_S = (0.05, 600.0)
"""Shortest and longest time between two looks. A look at 100,000 channels takes about 30 ms, in slices."""
CHANNELS_PER_TURN = 2000
"""Channels looked at in one turn of the event loop: a millisecond at most."""

log = structlog.get_logger("relay")


class Remove(Protocol):
    """Removes a channel if its newest publication has this position: `Broker.remove`."""

    def __call__(self, channel: str, *, at: Position) -> Awaitable[bool]:
        """Return whether it was removed."""
        ...


class IdleChannels:
    """For how long each channel was untouched, as seen in looks at all of them. Nothing is done for each value."""

    def __init__(self) -> None:
        self._seen: Mapping[Channel, tuple[Publication | None, int, float]] = {}

    def look(self, channels: Iterable[Channel], *, idle_s: float, now: float) -> Iterator[list[Channel]]:
        """Return the channels that were untouched for `idle_s`, in slices. `now` is a monotonic time in seconds."""
        seen: dict[Channel, tuple[Publication | None, int, float]] = {}
        idle: list[Channel] = []
        for number, channel in enumerate(channels, 1):
            if channel.stale:  # a channel that is live was touched a moment ago
                last, signs, since = self._seen.get(channel, (None, 0, now))
                if last is not channel.last or signs != channel.signs_of_life:
                    since = now
                seen[channel] = (channel.last, channel.signs_of_life, since)
                if now - since >= idle_s:
                    idle.append(channel)
            if not number % CHANNELS_PER_TURN:
                yield idle
                idle = []
        self._seen = seen
        yield idle


async def remove_idle_channels(hub: Hub, remove: Remove, idle_s: Callable[[], float]) -> None:
    """Remove idle channels until cancelled. While `idle_s` returns 0, nothing is removed."""
    idle_channels = IdleChannels()
    shortest, longest = LOOK_EVERY_S
    while True:
        limit = idle_s()
        await anyio.sleep(min(max(limit / LOOKS, shortest), longest) if limit else longest)
        if not limit:
            continue
        removed: list[str] = []
        for idle in idle_channels.look(hub.channels(), idle_s=limit, now=time.monotonic()):
            for channel in idle:
                last = channel.last
                if channel.removed or last is None or hub.is_named(channel.name):
                    continue
                try:
                    if await remove(channel.name, at=Position(epoch=last.epoch, seq=last.seq)):
                        removed.append(channel.name)
                except UnavailableError:
                    continue  # the next look finds it again
                await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        if removed:
            log.info("idle channels were removed", count=len(removed), first=removed[0], idle_s=limit)
