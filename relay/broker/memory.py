"""The broker of a single node: numbering in this process's memory, delivery by a call.

Its epoch ends with the process. A fan-out that may lose its last values at a restart is what `latest` channels
are made for: publishers send the next price anyway.
"""

import secrets

from relay.broker.base import Position, Receiver
from relay.core.errors import MalformedError, Reason
from relay.core.publications import Publication


class MemoryBroker:
    """A `Broker` within one process. `max_channels` bounds what a publisher can make it remember."""

    def __init__(self, *, max_channels: int) -> None:
        self._epoch = secrets.token_urlsafe(6)
        self._seqs: dict[str, int] = {}
        self._max_channels = max_channels
        self._receiver: Receiver | None = None

    def attach(self, receiver: Receiver) -> None:
        """See `Broker.attach`."""
        self._receiver = receiver

    async def publish(self, channel: str, data: bytes, *, ts: int, source_ts: int | None) -> Position:
        """See `Broker.publish`."""
        seq = self._seqs.get(channel, 0) + 1
        if seq == 1 and len(self._seqs) >= self._max_channels:
            raise MalformedError(
                f"There are {self._max_channels} channels already, which is limits.channels: publish to an "
                "existing one or raise the limit.",
                reason=Reason.CHANNELS_TOO_MANY,
            )
        self._seqs[channel] = seq
        if self._receiver is not None:
            self._receiver(
                Publication(
                    channel=channel, epoch=self._epoch, seq=seq, ts=ts, data=data, source_ts=source_ts
                )
            )
        return Position(epoch=self._epoch, seq=seq)
