"""The last value of each `latest` channel, for a relay that has lost its memory.

With the in-memory broker, values are lost when the relay restarts. A channel whose price does not change, for instance
outside of trading hours, would then have no value until it changes. So the publisher sends the last value again.
"""

from collections import OrderedDict
from collections.abc import Collection

from relay.client.publishing.messages import EncodedMessage

MAX_BYTES = 64 << 20
"""A hundred thousand prices of 300 bytes. Above it the least recently published channels are forgotten."""

ENTRY_BYTES = 350
"""What an entry takes besides its value: with many channels of small values, it would be most of the memory."""


class LastValues:
    """The last accepted value of each channel, as it was sent."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._drafts: OrderedDict[str, EncodedMessage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._drafts)

    def keep(self, message: EncodedMessage) -> None:
        """Keep a value as its channel's last one."""
        old = self._drafts.pop(message.channel, None)
        if old is not None:
            self._bytes -= _size(old)
        self._drafts[message.channel] = message
        self._bytes += _size(message)
        while self._bytes > self._max_bytes:
            _, oldest = self._drafts.popitem(last=False)
            self._bytes -= _size(oldest)

    def without(self, channels: Collection[str]) -> list[EncodedMessage]:
        """Return the last values of all other channels."""
        return [message for channel, message in self._drafts.items() if channel not in channels]


def _size(message: EncodedMessage) -> int:
    return ENTRY_BYTES + len(message.members)
