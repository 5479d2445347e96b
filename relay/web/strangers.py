"""Connections that have shown no token yet, counted by address, so that one address can't take all the room.

Beyond the limit an address is told so, as soon as its request is there. Of those who send none, another limit's worth
is left open, and what comes on top is cut off as it connects.

An IPv6 address counts as its /64: whoever has one of them has them all.
"""

from collections import Counter
from collections.abc import Sequence

from relay.core.addresses import Network, network_of
from relay.web.addresses import is_proxy


class Waiting:
    """Counts of connections without a token. `limit` is per address; `proxies` have many clients behind them."""

    def __init__(self, *, limit: int, proxies: Sequence[Network] = ()) -> None:
        self._limit = limit
        self._proxies = proxies
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

    def far_too_many(self, peer: str) -> bool:
        """Tell whether a socket's peer has more than twice its limit waiting: too many even to be told.

        Not of proxies: they connect when they have a client's whole request.
        """
        return self._counts[network_of(peer)] > 2 * self._limit and not is_proxy(peer, self._proxies)

    def too_many(self, address: str) -> bool:
        """Tell whether the address has more than its limit waiting, the one that asks included."""
        return self._counts[network_of(address)] > self._limit
