"""Connections that have shown no token yet, counted by address, so that one address can't take all the room."""

from collections import Counter


class Waiting:
    """Counts of connections without a token. `limit` is per address."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> None:
        """Count one more."""
        self._counts[address] += 1

    def leave(self, address: str) -> None:
        """Count one less; forgets addresses that have none."""
        self._counts[address] -= 1
        if self._counts[address] <= 0:
            del self._counts[address]

    def too_many(self, address: str) -> bool:
        """Tell whether the address has more than its limit waiting, the one that asks included."""
        return self._counts[address] > self._limit
