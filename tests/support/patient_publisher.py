"""The publisher of `relay bench`, which goes on after the relay told it that messages were not published.

`python -m tests.support.patient_publisher` takes the orders of `relay.bench.load.publisher`.
"""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from relay.bench.load.orders import carry_out
from relay.bench.load.publisher import Order, TickPublisher, publish
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


@contextlib.asynccontextmanager
async def patient(order: Order) -> AsyncIterator[PatientPublisher]:
    """Open a patient publisher until the block ends."""
    async with Publisher(order.url, order.key) as way:
        yield PatientPublisher(order, way)


if __name__ == "__main__":
    carry_out(Order, partial(publish, opened=patient))
