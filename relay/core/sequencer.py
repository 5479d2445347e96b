"""Numbers publications per channel, and drops those that came before: a broker's decisions without a broker.

A publisher that retries, and two that run at once, send the same value twice. What tells:

- `version`, per channel one number that is remembered. What is not newer is dropped, however late it comes, so a
  retry that overtakes nothing brings no old price back. A higher `version_epoch` begins the versions anew: a publisher
  whose clock was an hour ahead could otherwise block its channel for an hour.
- `idempotency_key`, for messages that have no order among themselves: the newest ones of each channel are remembered,
  with the number that the message got.

What is dropped gets no number and is no sign of life.
"""

from enum import StrEnum

from relay.core.errors import MalformedError, Reason

KEYS_A_CHANNEL = 1000
"""Newest keys remembered of a channel. A retry comes within seconds; the history's default has as many messages."""

KEYS = 200_000
"""Keys remembered of all channels, some 40 MB. Beyond it a channel that brings new ones forgets its own oldest."""


class Drop(StrEnum):
    """Why a publication was dropped."""

    STALE = "stale"
    DUPLICATE = "duplicate"


class _Channel:
    __slots__ = ("keys", "seq", "version")

    def __init__(self) -> None:
        self.seq = 0
        self.version = (-1, -1)  # epoch, version
        self.keys: dict[str, int] | None = None  # most channels have none


class Sequencer:
    """One epoch's numbers. `max_channels` bounds what publishers can make it remember."""

    def __init__(self, *, max_channels: int) -> None:
        self._channels: dict[str, _Channel] = {}
        self._max_channels = max_channels
        self._keys = 0

    def number(
        self, name: str, *, version: int | None, version_epoch: int | None, key: str | None
    ) -> tuple[int, Drop | None]:
        """Return the number of the next publication on a channel; or the one to answer with, and why it is dropped.

        That is the number of the first message with the same key, or of the channel's newest one.

        Raises:
            MalformedError: if the channel is new and there are too many.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = self._new(name)
        if key is not None and channel.keys is not None and key in channel.keys:
            return channel.keys[key], Drop.DUPLICATE
        if version is not None:
            place = (version_epoch or 0, version)
            if place <= channel.version:
                return channel.seq, Drop.STALE
            channel.version = place
        channel.seq += 1
        if key is not None:
            self._remember(channel, key)
        return channel.seq, None

    def seq(self, name: str) -> int:
        """Return the number of the newest publication on a channel, 0 if there was none."""
        channel = self._channels.get(name)
        return 0 if channel is None else channel.seq

    def reset(self, name: str) -> bool:
        """Forget a channel's versions and keys; its numbers go on. False: nothing was ever published there."""
        channel = self._channels.get(name)
        if channel is None:
            return False
        channel.version = (-1, -1)
        self._keys -= len(channel.keys or ())
        channel.keys = None
        return True

    def _new(self, name: str) -> _Channel:
        if len(self._channels) >= self._max_channels:
            raise MalformedError(
                f"There are {self._max_channels} channels already, which is limits.channels: publish to an "
                "existing one or raise the limit.",
                reason=Reason.CHANNELS_TOO_MANY,
            )
        return self._channels.setdefault(name, _Channel())

    def _remember(self, channel: _Channel, key: str) -> None:
        keys = channel.keys
        if keys is None:
            keys = channel.keys = {}
        keys[key] = channel.seq
        self._keys += 1
        if len(keys) > KEYS_A_CHANNEL or (self._keys > KEYS and len(keys) > 1):
            del keys[next(iter(keys))]
            self._keys -= 1
