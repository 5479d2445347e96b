"""Connections that have shown no token yet, counted by address, so that one address can't take all the room.

An IPv6 address counts as its /64: whoever has one of them has them all.
"""

from collections import Counter

from relay.core.addresses import network_of


class Waiting:
    """Counts of connections without a token. `limit` is per address."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Connections that have shown no token yet."""
        return self._counts.total()

    def enter(self, address: str) -> None:
        """Count one more."""
        self._counts[network_of(address)] += 1

    def leave(self, address: str) -> None:
        """Count one less; forgets addresses that have none."""
        network = network_of(address)
        self._counts[network] -= 1
        if self._counts[network] <= 0:
            del self._counts[network]

    def too_many(self, address: str) -> bool:
        """Tell whether the address has more than its limit waiting, the one that asks included."""
        return self._counts[network_of(address)] > self._limit
