"""Connections that have shown no token yet, counted by address, so that one address can't take all the room.

Beyond the limit an address is told so, as soon as its request is there. Those who send none are cut off as they
connect, once it is crowded and their address has twice its limit already. Not before: when a market opens, honest
clients connect by the thousand and take a while to say something.

An IPv6 address counts as its /64: whoever has one of them has them all.
"""

from collections import Counter
from collections.abc import Sequence

from relay.net.addresses import Network, network_of
from relay.net.client_address import is_proxy


class Waiting:
    """Counts of connections without a token.

    `limit` is per address; with more than `crowd` connections in all it is crowded; `proxies` have many clients behind
    them.
    """

    def __init__(self, *, limit: int, crowd: int, proxies: Sequence[Network] = ()) -> None:
        self._limit = limit
        self._crowd = crowd
        self._proxies = proxies
        self._counts: Counter[str] = Counter()
        self.total = 0

    def enter(self, address: str) -> None:
        """Count one more."""
        self.total += 1
        self._counts[network_of(address)] += 1

    def leave(self, address: str) -> None:
        """Count one less; forgets addresses that have none."""
        self.total -= 1
        network = network_of(address)
        self._counts[network] -= 1
        if self._counts[network] <= 0:
            del self._counts[network]

    def crowds_out(self, peer: str, *, connections: int) -> bool:
        """Tell whether a socket's peer takes room from others, too much even to be told. `connections`: open in all.

        Proxies never do: they connect when they have a client's whole request.
        """
        if connections <= self._crowd:
            return False
        return self._counts[network_of(peer)] > 2 * self._limit and not is_proxy(peer, self._proxies)

    def too_many(self, address: str) -> bool:
        """Tell whether the address has more than its limit waiting, the one that asks included."""
        return self._counts[network_of(address)] > self._limit
