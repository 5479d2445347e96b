"""Floods in one read: how much of them is parsed before the loop gets its turn."""

import pytest
from websockets.frames import Opcode
from websockets.protocol import Event

from relay.core.errors import Reason
from relay.stream.connection import (
    MAX_EARLY_CONTROL_FRAMES,
    MAX_UNHANDLED_FRAMES,
    PAUSE_READING_BYTES,
    READ_SLICE_BYTES,
    StreamConnection,
)
from tests.support.raw_websocket import masked, open_raw_websocket, text
from tests.support.stream_node import ORIGIN, Node

SMALLEST_FRAME = 6


def read_at_once(connection: StreamConnection, data: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Give the connection the bytes of one read. Return how many frames it has parsed."""
    seen: list[Event] = []
    process = connection.process_event

    def counted(event: Event) -> None:
        seen.append(event)
        process(event)

    monkeypatch.setattr(connection, "process_event", counted)
    connection.data_received(data)
    return len(seen)


@pytest.mark.parametrize(
    "frames",
    [
        masked(Opcode.PING) * 40_000,
        masked(Opcode.PONG) * 40_000,
        masked(Opcode.TEXT, b"1") * 40_000,
        text(type="ping") * 10_000,
        masked(Opcode.TEXT, fin=False) + masked(Opcode.CONT, fin=False) * 40_000,
    ],
    ids=["pings", "pongs", "no messages", "messages", "fragments"],
)
async def test_the_rest_of_a_flood_is_not_parsed(
    node: Node, monkeypatch: pytest.MonkeyPatch, frames: bytes
) -> None:
    """As soon as it is a flood the connection ends with 4029. The rest of the 240 KB is not parsed."""
    async with node.dial() as wire:
        assert await wire.shake() == 101
        await wire.message("error")
        (connection,) = node.connections
        looked_at = read_at_once(connection, frames, monkeypatch)
        assert looked_at <= MAX_UNHANDLED_FRAMES + READ_SLICE_BYTES // SMALLEST_FRAME + 1
        assert connection.ended is not None
        assert connection.ended.reason is Reason.FRAMES_TOO_FAST
        assert (await wire.ending()).code == 4029


async def test_pings_before_the_token_are_counted(node: Node) -> None:
    """More of them than a browser ever sends cut the connection. No rate limit counts them yet."""
    async with open_raw_websocket(node.port, "/ws/prices", origin=ORIGIN) as wire:
        assert await wire.shake() == 101
        (connection,) = node.stream._addresses
        connection.data_received(masked(Opcode.PING) * MAX_EARLY_CONTROL_FRAMES)
        assert not connection.transport.is_closing()
        connection.data_received(masked(Opcode.PONG))
        assert connection.transport.is_closing()
        await node.empty()


async def test_reading_pauses_while_the_client_does_not_read(node: Node) -> None:
    """While many answers wait to be sent, nothing is read. Reading continues when they are sent."""
    async with node.dial(receive_buffer=4096) as wire:
        assert await wire.shake() == 101
        await wire.message("error")
        (connection,) = node.connections
        connection.write(masked(Opcode.PONG, b"x" * 125) * 20_000)  # a few MB that the client does not take
        assert connection.pending() > PAUSE_READING_BYTES
        connection.data_received(masked(Opcode.PONG))
        assert not connection.transport.is_reading()
        while connection.pending():
            await wire.reader.read(65_536)
        assert connection.transport.is_reading()
