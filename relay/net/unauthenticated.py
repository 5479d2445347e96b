"""Connections that have not shown a token yet, counted by address, so that one address can't use all the room.

An HTTP connection never shows one that lasts. It is counted whenever it waits for its client.

A connection over its address's limit gets a refusal (429) as soon as its request has come. A client that sends no
request can't be told. It is cut off when it connects, but only if the listener is crowded and the address has twice its
limit already. When a market opens, honest clients connect by the thousand and need some time to send a request.

Connections are counted when TCP is accepted, before TLS. A TLS handshake alone takes 50 KB of memory.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from relay.net.addresses import Network, is_proxy, network_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """`limit` is per address. The listener is crowded with more than `crowd` connections in all.

    With more than `most` it takes no further one. With more than `idle`, none is kept between two requests.
    """

    limit: int
    crowd: int
    most: int = sys.maxsize
    idle: int = sys.maxsize


class UnauthenticatedConnections:
    """Counts of connections without a token, by address; an IPv6 address counts as its /64.

    `proxies` are addresses that many clients share.
    """

    def __init__(self, bounds: Bounds, *, proxies: Sequence[Network] = ()) -> None:
        self._bounds = bounds
        self._proxies = proxies
        self._counts: Counter[str] = Counter()
        self.total = 0
        self.unserved = 0
        """Connections that have ended since the start without a request that could be answered, or without a token."""

    def update(self, bounds: Bounds) -> None:
        """Use other bounds from now on. The counts stay."""
        self._bounds = bounds

    def add(self, address: str) -> None:
        """Count one connection more."""
        self.total += 1
        self._counts[network_of(address)] += 1

    def remove(self, address: str) -> None:
        """Count one connection less. An address without connections is forgotten."""
        self.total -= 1
        network = network_of(address)
        self._counts[network] -= 1
        if self._counts[network] <= 0:
            del self._counts[network]

    def must_drop(self, peer: str, *, connections: int) -> bool:
        """Tell whether a new connection must be cut off without an answer. `connections` is the number of open ones.

        Connections from proxies are never cut off: a proxy connects when it has a client's whole request.
        """
        bounds = self._bounds
        if connections <= bounds.crowd or is_proxy(peer, self._proxies):
            return False
        return connections > bounds.most or self._counts[network_of(peer)] > 2 * bounds.limit

    def may_idle(self, peer: str) -> bool:
        """Tell whether a connection that waits for nothing but a further request may stay open. It is counted."""
        is_over = self.total > self._bounds.idle or self.over_limit(peer)
        return not is_over or is_proxy(peer, self._proxies)

    def must_make_room(self, *, connections: int, limit: int) -> bool:
        """Tell whether a connection without a token must end, because more connections are open than `limit` allows.

        Below a tenth of the limit they may stay: then it is connections with a token that use the room.
        """
        return connections > limit and self.total > max(1, limit // 10)

    def over_limit(self, address: str) -> bool:
        """Tell whether the address has more connections than its limit. The connection in question is counted."""
        return self._counts[network_of(address)] > self._bounds.limit
