"""A reader that takes longer for each price than the prices take to come, and how old the prices are that it gets.

Age is counted in values that were published since, because a count does not depend on the machine's speed.
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
MOST_BEHIND = VALUES // 2
"""A reader that gets every value would be more than this behind at the end."""


async def values_behind(relay: Relay, next_value: Callable[[], Awaitable[dict[str, Any]]]) -> list[int]:
    """Publish `VALUES` numbers, each after the last one is acknowledged, and read until the last one has come.

    Returns for each value that the reader got how many newer ones were published by then.
    """
    published = 0

    async def publish() -> None:
        nonlocal published
        async with Publisher(relay.internal_url, PUBLISHER_KEY, transport="http") as publisher:
            for number in range(1, VALUES + 1):
                published = number
                await publisher.publish(PRICE, number)

    behind = []
    publishing = asyncio.create_task(publish())
    number = 0
    while number < VALUES:
        number = (await next_value())["data"]
        behind.append(published - number)
    await publishing
    return behind
