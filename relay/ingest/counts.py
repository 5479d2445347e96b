"""What each publisher did, in plain counters that metrics and operators read."""

import time
from dataclasses import dataclass, field

from relay.core.sequencer import Drop


@dataclass(slots=True)
class PublisherCounts:
    """One publisher's counts since the relay's start. `bytes` are those of published data.

    `stale` and `duplicate` were dropped; `connections` are its open sockets at /v1/ingest. `last_at` is when it was
    last heard of, in Unix seconds, 0 for never.
    """

    published: int = 0
    bytes: int = 0
    alive: int = 0
    refused: int = 0
    connections: int = 0
    dropped: dict[Drop, int] = field(default_factory=lambda: dict.fromkeys(Drop, 0))
    last_at: float = 0.0

    @property
    def stale(self) -> int:
        """Dropped for a version that was not newer."""
        return self.dropped[Drop.STALE]

    @property
    def duplicate(self) -> int:
        """Dropped for an idempotency key that was known."""
        return self.dropped[Drop.DUPLICATE]

    def note_published(self, size: int) -> None:
        """Count a publication of `size` bytes."""
        self.published += 1
        self.bytes += size
        self.last_at = time.time()

    def note_alive(self) -> None:
        """Count a sign of life."""
        self.alive += 1
        self.last_at = time.time()
