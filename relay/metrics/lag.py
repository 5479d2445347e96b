"""The lag of the event loop. All work of a relay shares one loop, so its lag is a lower bound of each latency."""

import asyncio

from relay.core.counters import DurationHistogram

EVERY_S = 0.1
"""Ten measurements per second find each block of the loop of 100 ms, and cost almost nothing."""


async def watch_loop(times: DurationHistogram) -> None:
    """Record how late this task is woken, until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        times.add(max(0.0, loop.time() - due))
