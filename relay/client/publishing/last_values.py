"""Each `latest` channel's last value, for a relay that has lost its memory.

With the in-memory broker values don't survive the relay. A channel whose publisher has nothing new to say, a price
outside of trading hours, would then have none until it changes: so the client says it again.
"""

from collections import OrderedDict
from collections.abc import Collection

from relay.client.publishing.drafts import Draft

MAX_BYTES = 64 << 20
"""Two hundred thousand prices of 300 bytes. Beyond it the channels that were published longest ago are forgotten."""


class LastValues:
    """The last value that was accepted on each channel, as it was sent."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._drafts: OrderedDict[str, Draft] = OrderedDict()

    def __len__(self) -> int:
        return len(self._drafts)

    def keep(self, draft: Draft) -> None:
        """Take a value for its channel's last one."""
        old = self._drafts.pop(draft.channel, None)
        if old is not None:
            self._bytes -= len(old.members)
        self._drafts[draft.channel] = draft
        self._bytes += len(draft.members)
        while self._bytes > self._max_bytes:
            _, oldest = self._drafts.popitem(last=False)
            self._bytes -= len(oldest.members)

    def but_for(self, channels: Collection[str]) -> list[Draft]:
        """Return the last values of all channels but these, of which newer ones are on their way."""
        return [draft for channel, draft in self._drafts.items() if channel not in channels]
