"""A value's position in its channel, and the relay's answer to a publication."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from relay.client.errors import PublishError

Dropped = Literal["stale", "duplicate"]
"""Why the relay dropped a message: its version was not newer, or its idempotency key was known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A value's position: `seq` counts the channel's values from 1 within one `epoch`."""

    channel: str
    epoch: str
    seq: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The relay has checked, numbered and stored a message, and handed it to the fan-out; or it has dropped it.

    `seq` is the message's number in the channel; None over a WebSocket, whose acks are cumulative. `dropped` is "stale"
    if the version was not newer than the channel's, "duplicate" if the idempotency key was known, and otherwise None.
    """

    channel: str
    epoch: str
    seq: int | None = None
    dropped: Dropped | None = None

    @property
    def position(self) -> Position | None:
        """The value's position, for `since` of a `Subscriber`; None if there is no `seq`."""
        return None if self.seq is None else Position(channel=self.channel, epoch=self.epoch, seq=self.seq)


Result = Receipt | PublishError
"""The outcome of one message."""
