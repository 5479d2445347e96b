"""A server that ends a connection before the client has sent the handshake, as one that is killed then does."""

import asyncio
from typing import Any

import pytest

from relay.client import Backoff, Publisher, Receipt, Update
from tests.support.scripted_ingest import KEY, ingest_server
from tests.support.scripted_servers import stream_server, value
from tests.support.sdk_subscriber import following, says, subscriber


@pytest.fixture
async def lost(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lose the first connection as soon as it is there. The list has an item for each connection."""
    loop, made = asyncio.get_running_loop(), list[int]()
    create_connection = loop.create_connection

    async def losing(*args: Any, **options: Any) -> Any:
        transport, protocol = await create_connection(*args, **options)
        made.append(len(made))
        if len(made) == 1:
            transport.abort()
            for _ in range(3):  # turns of the loop after which the protocol knows
                await asyncio.sleep(0)
        return transport, protocol

    monkeypatch.setattr(loop, "create_connection", losing)
    return made


async def test_a_subscriber_tries_again(lost: list[int]) -> None:
    """It is a failed attempt like any other."""
    async with stream_server(says(value("update", 1))) as stream, subscriber(stream.url) as prices:
        await prices.subscribe("prices.A")
        while not isinstance(await following(prices), Update):
            pass
    assert len(lost) == 2


async def test_a_publisher_tries_again(lost: list[int]) -> None:
    """Nothing is lost, and the program that publishes gets no exception."""
    backoff = Backoff(first_s=0, cap_s=0)
    async with (
        ingest_server() as ingest,
        Publisher(ingest.url, KEY, transport="websocket", backoff=lambda: backoff) as publisher,
    ):
        assert await publisher.publish("prices.A", 1) == Receipt(channel="prices.A", epoch="e1")
    assert (ingest.data("prices.A"), len(lost)) == ([1], 2)
