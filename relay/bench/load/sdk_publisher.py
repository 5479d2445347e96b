"""Publishes a run's ticks with the Python SDK, as a backend does: one `Publisher` over one connection.

`python -m relay.bench.load.sdk_publisher` takes the same orders as `relay.bench.load.publisher`. It is done when every
message is settled; a message that was refused ends it with that sentence.
"""

import asyncio
import time

import uvloop

from relay.bench.load.orders import Progress, carry_out, read_order, say, wait_for
from relay.bench.load.publisher import Order
from relay.client import Publisher

LOOK_EVERY = 256
"""Messages between looks for an order, each of which is a system call."""
AHEAD_S = 0.001
"""A message may go out so early: a sleep for each of 20,000 a second would cost more than sending it."""


async def publish(order: Order) -> None:
    """Publish everything, and the end marks when the order for them comes."""
    ticks = order.ticks
    async with Publisher(order.url, order.key) as publisher:
        say(ready=True)
        wait_for("go")
        say(**await _send_all(publisher, order))
        wait_for("finish")
        for place, channel in enumerate(ticks.channels):
            await publisher.send(channel, ticks.end_value(place))
        await publisher.flush()
        say(finished=True)
        read_order()  # the end of standard input


async def _send_all(publisher: Publisher, order: Order) -> dict[str, object]:
    ticks, progress = order.ticks, Progress("published")
    counts = [0] * len(ticks.channels)
    started = time.monotonic()
    for done, tick in enumerate(ticks.due()):
        if (wait := tick.due_s - (time.monotonic() - started)) > AHEAD_S:
            await asyncio.sleep(wait)
        if done % LOOK_EVERY == 0 and not progress.goes_on(done):
            break
        await publisher.send(ticks.channels[tick.channel], ticks.value(tick))
        counts[tick.channel] += 1
    await publisher.flush()
    return {"done": counts, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    carry_out(Order, lambda order: uvloop.run(publish(order)))
