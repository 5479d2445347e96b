"""The publisher of `relay bench`, which goes on after the relay told it that messages were not published.

`python -m tests.support.patient_publisher` takes the orders of `relay.bench.load.publisher`.
"""

import time

from relay.bench.load.orders import Published, carry_out, read_order, say, wait_for_end
from relay.bench.load.publisher import Order, TickPublisher, publish_all, publish_ends
from relay.client import Publisher, PublishError


class PatientPublisher(TickPublisher):
    """A publisher to which a price that could not be published is no reason to end: a newer one follows."""

    async def settle(self) -> None:
        """Wait until every message has its answer."""
        try:
            await super().settle()
        except PublishError as error:
            if not error.retryable:
                raise


async def publish(order: Order) -> None:
    """Publish everything, and then the end marks."""
    async with Publisher(order.url, order.key) as way:
        publisher = PatientPublisher(order, way)
        say(ready=True)
        read_order()  # go
        started = time.monotonic()
        counts = await publish_all(publisher, order.ticks, Published().goes_on)
        say(published=sum(counts), seconds=time.monotonic() - started)
        await publish_ends(publisher, order.ticks, counts)
        say(finished=True)
        wait_for_end()


if __name__ == "__main__":
    carry_out(Order, publish)
