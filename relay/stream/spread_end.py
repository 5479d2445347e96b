"""The end of all connections of a node, spread over some seconds, so that the clients do not come back all at once."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from relay.core.closes import close_for
from relay.core.errors import Reason
from relay.stream.registry import Connection

ENDED_PER_S = 500
"""Connections that are closed in a second, at least. Each comes back with a token request and a handshake."""
HANDED_OVER_PER_S = 50
"""The same where a successor accepts connections already: there is no hurry. 500 a second from each of two workers
were more tokens and handshakes than two cores do beside the prices of everybody."""
RECONNECT_WITHIN_MS = 5000
"""Each client reconnects after half a second and a random part of these milliseconds."""
HANDED_OVER_WITHIN_MS = 200
"""The same, without the half second, where a successor accepts connections already."""


async def end_spread(
    connections: Sequence[Connection],
    reason: Reason,
    *,
    within_s: float,
    wanted: Callable[[], bool] = lambda: True,
    has_successor: bool = False,
) -> int:
    """Close connections within `within_s`, as long as that is `wanted`. Return how many were closed.

    Each client is told when to reconnect.
    """
    soonest_ms, random_ms = (0, HANDED_OVER_WITHIN_MS) if has_successor else (500, RECONNECT_WITHIN_MS)
    spread_s = min(within_s, len(connections) / (HANDED_OVER_PER_S if has_successor else ENDED_PER_S))
    start = time.monotonic()
    for index, connection in enumerate(connections):
        wait_s = start + spread_s * index / len(connections) - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if not wanted():
            return index
        # the delay is random: clients that reconnect all at once would overload the next relay
        connection.announce_restart(delay_ms=soonest_ms + secrets.randbelow(random_ms))
        connection.end(close_for(reason))
    return len(connections)
