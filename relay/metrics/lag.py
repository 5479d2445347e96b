"""How late the event loop is: everything a relay does shares one, so its lag is a lower bound of every latency."""

import asyncio

from relay.core.counters import DurationHistogram

EVERY_S = 0.1
"""Ten looks a second see whatever holds the loop for 100 ms, and cost nothing."""


async def watch_loop(times: DurationHistogram) -> None:
    """Note, until cancelled, how much later than asked for this task is woken."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        times.add(max(0.0, loop.time() - due))
