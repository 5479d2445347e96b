"""The broker of a single node: numbering in this process's memory, delivery by a call.

Its epoch ends with the process. A fan-out that may lose its last values at a restart is what `latest` channels
are made for: publishers send the next price anyway, and the SDK the last one again.
"""

import secrets

from relay.broker.base import Dropped, Outcome, Position, Receiver
from relay.core.publications import Draft, Publication
from relay.core.sequencer import Sequencer


class MemoryBroker:
    """A `Broker` within one process. `max_channels` bounds what a publisher can make it remember."""

    def __init__(self, *, max_channels: int) -> None:
        self.epoch = secrets.token_urlsafe(6)
        self._sequencer = Sequencer(max_channels=max_channels)
        self._receiver: Receiver | None = None

    def attach(self, receiver: Receiver) -> None:
        """See `Broker.attach`."""
        self._receiver = receiver

    async def publish(self, draft: Draft, *, ts: int) -> Outcome:
        """See `Broker.publish`."""
        seq, drop = self._sequencer.number(
            draft.channel,
            version=draft.version,
            version_epoch=draft.version_epoch,
            key=draft.idempotency_key,
        )
        position = Position(epoch=self.epoch, seq=seq)
        if drop is not None:
            return Dropped(why=drop, position=position)
        if self._receiver is not None:
            self._receiver.publish(
                Publication(
                    channel=draft.channel,
                    epoch=self.epoch,
                    seq=seq,
                    ts=ts,
                    data=bytes(draft.data),
                    source_ts=draft.source_ts,
                )
            )
        return position

    async def alive(self, channel: str, *, ts: int) -> Position:
        """See `Broker.alive`."""
        if self._receiver is not None:
            self._receiver.alive(channel, ts=ts)
        return Position(epoch=self.epoch, seq=self._sequencer.seq(channel))

    async def reset(self, channel: str) -> bool:
        """See `Broker.reset`."""
        return self._sequencer.reset(channel)
