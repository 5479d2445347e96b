"""The broker port: it numbers publications and brings them to every node's hub.

Guarantees that every adapter gives, and that its contract test checks:

- `publish` returns when the publication is numbered, kept as its channel's last value and handed to delivery.
  It does not wait until anybody has received it.
- Within one epoch `seq` counts from 1 per channel without gaps. A new epoch is a new sequencer's life: numbers
  start again, and what was kept before may be gone.
- A receiver gets each channel's publications in order of `seq`, at least once: after a reconnect some may come
  again, and the hub drops those by epoch and seq. The first publication of a channel that a receiver gets may
  have any seq.
- Delivery calls the receiver from the event loop's thread, never concurrently with itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relay.core.publications import Publication

Receiver = Callable[[Publication], object]
"""What it returns is its own business: the hub tells whether it had seen the publication before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a publication stands: its sequencer's epoch, and its number in the channel, counted from 1."""

    epoch: str
    seq: int


class Broker(Protocol):
    """Numbers publications and delivers them to the receiver of every node."""

    async def publish(self, channel: str, data: bytes, *, ts: int, source_ts: int | None) -> Position:
        """Number and deliver one value. `ts` is the time of ingest, `source_ts` the publisher's, both in Unix ms.

        Raises:
            UnavailableError: if the broker can't be reached; nothing was stored.
            MalformedError: if the channel is new and no more channels are allowed.
        """
        ...

    def attach(self, receiver: Receiver) -> None:
        """Name the one receiver of this node, before anything is published."""
        ...
