"""The broker port: it numbers publications and brings them to every node's hub.

Guarantees that every adapter gives, and that its contract test checks:

- `publish` returns when the publication is numbered, kept as its channel's last value and handed to delivery.
  It does not wait until anybody has received it.
- Within one epoch `seq` counts from 1 per channel without gaps. A new epoch is a new sequencer's life: numbers
  start again, and what was kept before may be gone.
- A receiver gets each channel's publications in order of `seq`, at least once: after a reconnect some may come
  again, and the hub drops those by epoch and seq. The first publication of a channel that a receiver gets may
  have any seq.
- What has a `version` not newer than the channel's newest, or an `idempotency_key` that was seen there lately, is
  dropped: no number, no delivery, no sign of life (`relay.core.sequencer`).
- Signs of life reach every node too, and may overtake publications; one of a channel without a value is nothing.
- Delivery calls the receiver from the event loop's thread, never concurrently with itself.
"""

from dataclasses import dataclass
from typing import Protocol

from relay.core.publications import Draft, Publication
from relay.core.sequencer import Drop


class Receiver(Protocol):
    """One node's hub, as a broker knows it. What the calls return is the hub's own business."""

    def publish(self, publication: Publication) -> object:
        """Take a publication."""
        ...

    def alive(self, channel: str, *, ts: int) -> object:
        """Hear that a channel's publisher is there, at `ts` in Unix ms."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a publication stands: its sequencer's epoch, and its number in the channel, counted from 1."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A publication that came before, or too late. `position` is the first one's, or the channel's newest."""

    why: Drop
    position: Position


Outcome = Position | Dropped


class Broker(Protocol):
    """Numbers publications and delivers them to the receiver of every node."""

    @property
    def epoch(self) -> str:
        """The sequencer's life."""
        ...

    async def publish(self, draft: Draft, *, ts: int) -> Outcome:
        """Number and deliver one value. `ts` is the time of ingest in Unix ms.

        Raises:
            UnavailableError: if the broker can't be reached; nothing was stored.
            MalformedError: if the channel is new and no more channels are allowed.
        """
        ...

    async def alive(self, channel: str, *, ts: int) -> Position:
        """Tell every node that a channel's value is unchanged; returns where it stands, with seq 0 if it has none.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        ...

    async def reset(self, channel: str) -> bool:
        """Forget the versions and keys of a channel, whose numbers go on. False: it has no value.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        ...

    def attach(self, receiver: Receiver) -> None:
        """Name the one receiver of this node, before anything is published."""
        ...
