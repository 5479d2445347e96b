"""What the tests of the subscriber share: one that loses no time, and scripts for the stream it reads."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection

from relay.client import (
    Backoff,
    Event,
    Subscriber,
)
from tests.support.compression_ways import way
from tests.support.scripted_servers import TOKEN, send_all, stay, welcome


async def following(events: Subscriber) -> Event:
    """Return the next event, or fail the test after 20 seconds."""
    async with asyncio.timeout(20):
        return await anext(events)


async def fresh() -> str:
    """Return a token for one attempt."""
    return TOKEN


def subscriber(url: str, token: Any = fresh, **options: Any) -> Subscriber:
    """Return a subscriber without waits between its attempts."""
    options = {"compress": way.compressed} | options
    return Subscriber(url, token, backoff=Backoff(first_s=0, cap_s=0), **options)


def says(
    *frames: dict[str, Any],
    then: Callable[[ServerConnection], Awaitable[Any]] = stay,
) -> Any:
    """Return a script that welcomes, sends `frames` and then does one more thing."""

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await send_all(connection, *frames)
        await then(connection)

    return talk


def closes(code: int, reason: str = "") -> Callable[[ServerConnection], Awaitable[None]]:
    """Return the last step of a script: a close frame."""

    async def close(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    return close


async def take(events: Subscriber, count: int) -> list[Event]:
    """Return the next events."""
    return [await following(events) for _ in range(count)]
