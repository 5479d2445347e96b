"""Where a value stands in its channel, and what a publisher hears of what it sent."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from relay.client.errors import PublishError

Dropped = Literal["stale", "duplicate"]
"""Why a message was not published again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the relay put a value: `seq` counts per channel from 1 within one `epoch`."""

    channel: str
    epoch: str
    seq: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The relay has checked, numbered and stored a message, and handed it to the fan-out; or dropped it.

    `seq` is its number in the channel. A socket's acks are cumulative and tell none: None. `dropped` is "stale" for a
    version that was not newer than the channel's, "duplicate" for an idempotency key that was seen, None for neither.
    """

    channel: str
    epoch: str
    seq: int | None = None
    dropped: Dropped | None = None

    @property
    def position(self) -> Position | None:
        """The value's position, to be given to a `Subscriber` as `since`; None where the relay told no `seq`."""
        return None if self.seq is None else Position(channel=self.channel, epoch=self.epoch, seq=self.seq)


Result = Receipt | PublishError
"""What becomes of one message."""
