"""The sequencer: it numbers the publications of each channel and drops repeated and outdated ones.

A publisher that retries sends a value twice, and so do two publishers that run at the same time. Two members of a
publication tell:

- `version`: the newest version of each channel is remembered. A publication with the same or a lower version is
  dropped, so a late retry never brings back an old price. A higher `version_epoch` starts the versions again. Without
  it, a publisher whose clock was an hour ahead would block its channel for an hour.
- `idempotency_key`: for messages that have no order. The newest keys of each channel are remembered, with the number
  that each message got.

A dropped publication gets no number and is no sign of life.

A channel can be removed. Only the highest number of all removed channels is kept, and a new channel begins above it.
Subscribers take a publication of the same epoch with a smaller number for a repetition: a channel that came back and
began at 1 again would stay at its old value.
"""

from enum import StrEnum

from relay.core.errors import MalformedError, Reason

KEYS_A_CHANNEL = 1000
"""Newest keys that are remembered per channel. A retry comes within seconds. The history has as many messages by
default."""

KEYS = 200_000
"""Keys that are remembered for all channels, some 40 MB. Above this, a channel with a new key forgets its own oldest
one."""


class Drop(StrEnum):
    """Why a publication was dropped."""

    STALE = "stale"
    DUPLICATE = "duplicate"


class _ChannelState:
    """What the sequencer remembers of one channel."""

    __slots__ = ("keys", "seq", "version")

    def __init__(self) -> None:
        self.seq = 0
        self.version = (-1, -1)  # epoch, version
        self.keys: dict[str, int] | None = None  # most channels have none


class Sequencer:
    """The numbers of one epoch. `max_channels` bounds how many channels publishers can create."""

    def __init__(self, *, max_channels: int) -> None:
        self._channels: dict[str, _ChannelState] = {}
        self.max_channels = max_channels
        self._keys = 0
        self._highest_removed = 0

    def number(
        self, name: str, *, version: int | None, version_epoch: int | None, key: str | None
    ) -> tuple[int, Drop | None]:
        """Return the number of a channel's next publication and None, or another number and why it is dropped.

        The number of a dropped publication is that of the first message with the same key, or the channel's newest.

        Raises:
            MalformedError: if the channel is new and there are `max_channels` already.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = self._new(name)
        if key is not None and channel.keys is not None and key in channel.keys:
            return channel.keys[key], Drop.DUPLICATE
        if version is not None:
            epoch_and_version = (version_epoch or 0, version)
            if epoch_and_version <= channel.version:
                return channel.seq, Drop.STALE
            channel.version = epoch_and_version
        channel.seq += 1
        if key is not None:
            self._remember(channel, key)
        return channel.seq, None

    def seq(self, name: str) -> int:
        """Return the number of a channel's newest publication, or 0 if there is none."""
        channel = self._channels.get(name)
        return 0 if channel is None else channel.seq

    def reset(self, name: str) -> bool:
        """Forget a channel's versions and keys. Its numbers go on. False: the channel has no publication."""
        channel = self._channels.get(name)
        if channel is None:
            return False
        channel.version = (-1, -1)
        self._keys -= len(channel.keys or ())
        channel.keys = None
        return True

    def remove(self, name: str) -> bool:
        """Forget a channel. If it comes back, its numbers begin above its last one. False: there is none."""
        channel = self._channels.pop(name, None)
        if channel is None:
            return False
        self._highest_removed = max(self._highest_removed, channel.seq)
        self._keys -= len(channel.keys or ())
        return True

    def _new(self, name: str) -> _ChannelState:
        if len(self._channels) >= self.max_channels:
            raise too_many_channels(self.max_channels)
        channel = self._channels[name] = _ChannelState()
        channel.seq = self._highest_removed
        return channel

    def _remember(self, channel: _ChannelState, key: str) -> None:
        keys = channel.keys
        if keys is None:
            keys = channel.keys = {}
        keys[key] = channel.seq
        self._keys += 1
        if len(keys) > KEYS_A_CHANNEL or (self._keys > KEYS and len(keys) > 1):
            del keys[next(iter(keys))]
            self._keys -= 1


def too_many_channels(max_channels: int) -> MalformedError:
    """Return the error for a new channel above the limit."""
    return MalformedError(
        f"There are {max_channels} channels, and limits.channels allows no more. Publish to an existing channel, "
        "raise the limit, or lower channels.idle_s, after which unused channels are removed.",
        reason=Reason.CHANNELS_TOO_MANY,
    )
