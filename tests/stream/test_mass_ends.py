"""Many connections that end in one moment: each turn of the event loop does a part of the work."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from websockets.frames import Close, Opcode

from relay.core.revocations import Kind, Target
from relay.net.admission import CLOSED_PER_TURN
from tests.support.raw_websocket import RawWebSocket, masked
from tests.support.stream_node import Node

COUNT = 4 * CLOSED_PER_TURN


def _reset(wires: list[RawWebSocket], _node: Node) -> None:
    for wire in wires:
        wire.reset()


def _shut(wires: list[RawWebSocket], _node: Node) -> None:
    for wire in wires:
        wire.writer.write_eof()


def _close(wires: list[RawWebSocket], _node: Node) -> None:
    for wire in wires:
        wire.send(masked(Opcode.CLOSE, Close(1000, "").serialize()))


def _revoke(_wires: list[RawWebSocket], node: Node) -> None:
    (kid,) = {admitted.kid for tokens in node.stream.registry.connections.values() for admitted in tokens}
    assert node.stream.registry.end(Target(kind=Kind.KEY, name=kid)) == COUNT


@pytest.mark.parametrize("end", [_reset, _shut, _close, _revoke])
async def test_each_turn_ends_a_few_connections(
    node: Node, end: Callable[[list[RawWebSocket], Node], None]
) -> None:
    """Whatever ends them: resets, a shut side, close frames, the revocation of a key."""
    async with AsyncExitStack() as stack:
        wires = []
        for number in range(COUNT):
            token = node.tickets.token(session=f"s{number}")
            wires.append(await stack.enter_async_context(node.dial("&channels=prices.A", token=token)))
            assert await wires[-1].shake() == 101
            await wires[-1].message("welcome")
        subscribers = node.fanout.hub._subscribers
        assert len(subscribers) == COUNT
        end(wires, node)
        left = [len(subscribers)]
        while left[-1]:
            await asyncio.sleep(0)
            left.append(len(subscribers))
        assert max(before - after for before, after in itertools.pairwise(left)) <= CLOSED_PER_TURN
        await node.empty()
