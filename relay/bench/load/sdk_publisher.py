"""Publishes a run's ticks with the Python SDK, as a backend does: one `Publisher`, one connection, its own process.

`python -m relay.bench.load.sdk_publisher` is told by the same lines as `relay.bench.load.publisher`. It says that it
is done when every message is settled: one that was refused ends it with that sentence.
"""

import asyncio
import sys
import time

import msgspec
import uvloop

from relay.bench.load.orders import Gone, is_told, read_line, read_order, say
from relay.bench.load.publisher import TELL_EVERY_S, Order
from relay.client import Publisher
from relay.core.errors import RelayError

LOOK_EVERY = 256
"""Messages between looks for an order: a system call each time."""
AHEAD_S = 0.001
"""A message may go out so early: a sleep for each of 20,000 a second would cost more than sending it."""


async def carry_out(order: Order) -> None:
    """Publish everything, and the end marks when told to."""
    ticks = order.ticks
    async with Publisher(order.url, order.key) as publisher:
        say(ready=True)
        read_order()  # go
        counts = await _send_all(publisher, order)
        say(**counts)
        while "finish" not in read_order():  # a stop may have crossed with the last tick
            pass
        for place, channel in enumerate(ticks.channels):
            await publisher.send(channel, ticks.end_value(place))
        await publisher.flush()
        say(finished=True)
        read_order()  # its end


async def _send_all(publisher: Publisher, order: Order) -> dict[str, object]:
    ticks = order.ticks
    counts = [0] * len(ticks.channels)
    started = told_at = time.monotonic()
    for done, tick in enumerate(ticks.due()):
        if (wait := tick.due_s - (time.monotonic() - started)) > AHEAD_S:
            await asyncio.sleep(wait)
        if done % LOOK_EVERY == 0:
            if is_told():
                read_order()  # stop
                break
            if (now := time.monotonic()) - told_at > TELL_EVERY_S:
                told_at = now
                say(published=done)
        await publisher.send(ticks.channels[tick.channel], ticks.value(tick))
        counts[tick.channel] += 1
    await publisher.flush()
    return {"done": counts, "seconds": time.monotonic() - started}


def main() -> None:
    """Carry out one order."""
    try:
        uvloop.run(carry_out(msgspec.json.decode(read_line(), type=Order)))
    except RelayError as error:
        say(error=str(error))
    except (Gone, BrokenPipeError):
        sys.exit(0)


if __name__ == "__main__":
    main()
