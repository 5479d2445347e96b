"""Clients that resume many stream channels at once, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from relay.client import Position, Subscriber, Update
from relay.core.channels import ChannelOptions
from relay.core.messages import Mode
from tests.support.raw_websocket import text
from tests.support.stream_node import ORIGIN, Node, running_node

MISSED = 100
CHANNELS = [f"prices.S{number:03}" for number in range(256)]
IN_ORDER = {channel: list(range(1, MISSED + 1)) for channel in CHANNELS}


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A stream node whose channels have a history."""
    options = ChannelOptions(mode=Mode.STREAM, history_messages=1000, history_ms=1 << 50)
    async with running_node(tmp_path, channels=options) as node:
        for channel in CHANNELS:
            for _ in range(MISSED):
                node.publish(channel)
        yield node


async def test_a_client_that_missed_much_gets_everything_in_order(node: Node) -> None:
    """One frame resumes 256 channels. Another client is answered before the replay is over."""
    since = {channel: {"epoch": "e1", "seq": 0} for channel in CHANNELS}
    async with node.dial("&channels=prices.other") as away, node.dial("&channels=prices.other") as other:
        assert [await away.shake(), await other.shake()] == [101, 101]
        away.send(text(type="subscribe", channels=CHANNELS, since=since))
        ack = await away.message("subscribed")
        while not any(one["channel"] in IN_ORDER for one in ack["channels"]):
            ack = await away.message("subscribed")
        assert all(one["recovered"] for one in ack["channels"])
        other.send(text(type="ping", id=7))
        assert (await other.message("pong"))["id"] == 7
        got: dict[str, list[int]] = {}
        for _ in range(len(CHANNELS) * MISSED):
            message = await away.message("snapshot", "update")
            assert message["type"] == "update"
            got.setdefault(message["channel"], []).append(message["seq"])
        assert got == IN_ORDER


async def test_the_python_client_gets_everything_in_order(node: Node) -> None:
    """It needs several frames for the positions of 256 channels, and none of them is refused."""
    got: dict[str, list[int]] = {}
    since = {channel: Position(channel=channel, epoch="e1", seq=0) for channel in CHANNELS}
    url = f"ws://127.0.0.1:{node.port}/ws/prices"
    async with Subscriber(url, node.tickets.token(), origin=ORIGIN, since=since) as subscriber:
        await subscriber.subscribe(CHANNELS)
        async for event in subscriber:
            if isinstance(event, Update):
                got.setdefault(event.channel, []).append(event.seq)
            if sum(map(len, got.values())) == len(CHANNELS) * MISSED:
                break
    assert got == IN_ORDER
    await asyncio.wait_for(node.empty(), 20)
