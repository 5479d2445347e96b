"""The broker of a single node: it numbers in this process's memory and delivers by a call.

Its epoch ends with the process, and so do the last values. `latest` channels are made for that: publishers send the
next price soon, and the Python client sends each channel's last one again.
"""

import secrets
from collections.abc import Sequence

from relay.broker.base import Dropped, Loaded, Outcome, Position, Ready, Receiver
from relay.core.publications import Draft, Publication
from relay.core.sequencer import Sequencer


class MemoryBroker:
    """A `Broker` within one process. `max_channels` bounds how many channels publishers can create."""

    def __init__(self, *, max_channels: int) -> None:
        self.epoch = secrets.token_urlsafe(6)
        self._sequencer = Sequencer(max_channels=max_channels)
        self._receiver: Receiver | None = None
        self._last: dict[str, Publication] = {}  # the objects that the hub was given, not copies
        self._published = 0

    def update(self, *, max_channels: int) -> None:
        """Use another bound from now on. Channels that exist stay."""
        self._sequencer.max_channels = max_channels

    def publish(self, draft: Draft, *, ts: int) -> Ready[Outcome]:
        """See `Broker.publish`."""
        seq, drop = self._sequencer.number(
            draft.channel,
            version=draft.version,
            version_epoch=draft.version_epoch,
            key=draft.idempotency_key,
        )
        position = Position(epoch=self.epoch, seq=seq)
        if drop is not None:
            return Ready(Dropped(why=drop, position=position))
        publication = self._last[draft.channel] = Publication(
            channel=draft.channel,
            epoch=self.epoch,
            seq=seq,
            ts=ts,
            data=bytes(draft.data),
            source_ts=draft.source_ts,
        )
        self._published += 1
        if self._receiver is not None:
            self._receiver.publish(publication)
        return Ready(position)

    def alive(self, channel: str, *, ts: int) -> Ready[Position]:
        """See `Broker.alive`."""
        if self._receiver is not None:
            self._receiver.alive(channel, ts=ts)
        return Ready(Position(epoch=self.epoch, seq=self._sequencer.seq(channel)))

    async def reset(self, channel: str) -> bool:
        """See `Broker.reset`."""
        return self._sequencer.reset(channel)

    async def remove(self, channel: str, *, at: Position | None = None) -> bool:
        """See `Broker.remove`."""
        if at not in (None, Position(epoch=self.epoch, seq=self._sequencer.seq(channel))):
            return False
        if not self._sequencer.remove(channel):
            return False
        self._last.pop(channel, None)
        self._published += 1
        if self._receiver is not None:
            self._receiver.remove(channel)
        return True

    async def load(self) -> Loaded:
        """See `Broker.load`."""
        return Loaded(values=list(self._last.values()), delivery_position=str(self._published))

    async def history(self, channel: str, *, after: Position) -> Sequence[Publication] | None:
        """See `Broker.history`. The hub got every publication, so what it does not keep any more is gone."""
        del channel, after
        return None

    def attach(self, receiver: Receiver, *, after: str) -> None:
        """See `Broker.attach`. Delivery is a call within `publish`, so a receiver can only miss what came before.

        Raises:
            ValueError: if something was published after the position; `load` must be called again.
        """
        if after != str(self._published):
            raise ValueError(
                "publications were made after this position: call load again, then attach at once"
            )
        self._receiver = receiver
