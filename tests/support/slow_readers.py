"""A reader that takes longer for each price than the prices take to come.

What waits for it is counted in values, because a count does not depend on the machine's speed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from relay.client import Publisher
from tests.support.relay_process import PUBLISHER_KEY, Relay

PRICE = "prices.BTC-USD"
WORK_MS = 100
"""The reader's work for each value."""

VALUES = 200
"""Least number of published values."""
FIRST = 10
"""Values that the reader must have got before the last one is published."""
IN_FLIGHT = 5
"""Values that may be on their way to any reader."""


async def check_that_values_are_skipped(
    relay: Relay, next_value: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    """Publish numbers, each after the last one is acknowledged, and read until the last one has come.

    When the last number is published, some have not reached the reader. One that gets every value gets all of these
    before the last one, so its prices grow old. One that gets new prices skips most of them. On a busy machine, where
    it rarely gets several at once, that is at least one of ten.
    """
    got = got_then = last = 0

    async def publish() -> None:
        nonlocal got_then, last
        number = 0
        async with Publisher(relay.internal_url, PUBLISHER_KEY, transport="http") as publisher:
            while not last:
                number += 1
                if number >= VALUES and got >= FIRST:
                    got_then, last = got, number
                await publisher.publish(PRICE, number)

    publishing = asyncio.create_task(publish())
    numbers = [0]
    while not last or numbers[-1] != last:
        numbers.append((await next_value())["data"])
        got += 1
    await publishing
    assert numbers == sorted(set(numbers))
    waiting, came = last - got_then, got - got_then
    assert came <= max(IN_FLIGHT, waiting * 9 // 10), (waiting, numbers)
