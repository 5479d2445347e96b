"""The heartbeat loop: heartbeats, pings, silent peers, stalled readers, connections at their age limit."""

import asyncio
import json
import socket
import time

import pytest
from websockets.frames import Opcode

from relay.core.liveness import BEATS_PER_HEARTBEAT
from relay.net.sockets import USER_TIMEOUT_MS
from relay.stream.connection import SILENT_ROUNDS, StreamConnection
from relay.stream.heartbeat import run_heartbeat
from relay.stream.listener import NOTSENT_LOWAT_BYTES
from relay.stream.outgoing import STALLED_CHECKS
from tests.support.raw_websocket import RawWebSocket, masked, text, until
from tests.support.stream_node import Node


async def welcomed(wire: RawWebSocket) -> None:
    """Read the handshake and the ack of the channels in the URL."""
    assert await wire.shake() == 101
    await wire.message("subscribed")


def look(node: Node, *, ping: bool = False, at: float = 0.0) -> None:
    """Check each connection as the heartbeat loop does."""
    for connection in node.connections:
        connection.check(at or time.monotonic(), ping=ping)


async def blocked(node: Node, connection: StreamConnection) -> None:
    """Publish until bytes wait for this connection's client, which does not read."""
    for _ in range(10_000):
        node.publish("prices.A", b'"%b"' % (b"x" * 10_000))
        await asyncio.sleep(0)  # the flush's turn
        if connection.pending():
            return
    pytest.fail("the kernel took all of it")


async def test_a_connection_without_messages_gets_a_heartbeat(node: Node) -> None:
    """After four beats without a message a connection gets a heartbeat; one that got a price does not."""
    async with node.dial("&channels=prices.A") as quiet, node.dial("&channels=prices.B") as busy:
        await welcomed(quiet)
        await welcomed(busy)
        for beat in range(2 * BEATS_PER_HEARTBEAT):
            if beat % BEATS_PER_HEARTBEAT == 1:
                node.publish("prices.B")
                await busy.message("snapshot", "update")
            list(node.fanout.hub.beat(now_ms=beat))
        heard = [json.loads((await quiet.frame())[1]) for _ in range(2)]
        assert heard == [{"type": "heartbeat", "ts": 3}, {"type": "heartbeat", "ts": 7}]
        busy.send(text(type="ping"))
        assert json.loads((await busy.frame())[1])["type"] == "pong"


async def test_the_heartbeat_loop_runs_by_itself(node: Node) -> None:
    """The real timer: about five seconds after the last frame, a heartbeat, with the server's clock."""
    loop = asyncio.create_task(run_heartbeat(node.fanout.hub, node.stream.registry))
    try:
        async with node.dial("&channels=prices.A") as wire:
            await welcomed(wire)
            message = await wire.message("heartbeat")
            assert abs(message["ts"] - time.time() * 1000) < 60_000
    finally:
        loop.cancel()


async def test_a_silent_peer_is_dropped_in_the_third_round(node: Node) -> None:
    """It is cut off in the third round of pings. A peer that answers stays."""
    async with node.dial("&channels=prices.A") as dead, node.dial("&channels=prices.A") as alive:
        await welcomed(dead)
        await welcomed(alive)
        for _ in range(SILENT_ROUNDS - 1):
            look(node, ping=True)
            assert await alive.frame() == (Opcode.PING, b"")
            alive.send(masked(Opcode.PONG))
            await until(lambda: node.connections[1]._silent_rounds == 0)
        look(node, ping=True)
        ending = await dead.ending()
        assert (ending.code, ending.before) == (None, [])
        await until(lambda: len(node.connections) == 1)
        assert (await alive.frame())[0] == Opcode.PING


async def test_a_slow_reader_is_not_taken_for_a_dead_one(node: Node) -> None:
    """While bytes wait no ping is sent, so silence proves nothing. Only a stall ends the connection."""
    async with node.dial("&channels=prices.A", receive_buffer=4096) as slow:
        await welcomed(slow)
        (connection,) = node.connections
        await blocked(node, connection)
        for _ in range(5 * SILENT_ROUNDS):
            look(node, ping=True)
            await slow.message("snapshot", "update")
            node.publish("prices.A", b'"%b"' % (b"x" * 10_000))
            await asyncio.sleep(0)
            await blocked(node, connection)
        assert node.connections == [connection]


async def test_a_reader_that_takes_nothing_is_dropped(node: Node) -> None:
    """It is cut off after so many checks without a byte taken, with the reason reader_stalled."""
    async with node.dial("&channels=prices.A", receive_buffer=4096) as wire:
        await welcomed(wire)
        (connection,) = node.connections
        await blocked(node, connection)
        for _ in range(STALLED_CHECKS):
            assert node.connections == [connection]
            look(node)
        await node.empty()
        assert connection.ended is not None
        assert connection.ended.reason == "reader_stalled"


async def test_a_reader_that_takes_something_is_not_dropped(node: Node) -> None:
    """Bytes that were taken between two checks count, also if as many wait again."""
    async with node.dial("&channels=prices.A", receive_buffer=4096) as wire:
        await welcomed(wire)
        (connection,) = node.connections
        for _ in range(3):
            await blocked(node, connection)
            for _ in range(STALLED_CHECKS - 1):
                look(node)
            while connection.pending():
                await wire.frame()
        assert node.connections == [connection]


async def test_a_session_that_is_over_opens_nothing(node: Node) -> None:
    """Its token may be valid for some seconds more, but opens no connection."""
    async with node.dial(token=node.tickets.token(session_expires_at=int(time.time()) - 1)) as wire:
        assert await wire.shake() == 401


async def test_a_connection_ends_with_its_session(node: Node) -> None:
    """It closes with 4001 at `expires_at`, which the session's end brings forward, and not earlier."""
    end = int(time.time()) + 600
    token = node.tickets.token(session_expires_at=end)
    async with node.dial("&channels=prices.A", token=token) as wire:
        assert await wire.shake() == 101
        assert abs((await wire.message("welcome"))["expires_at"] - end * 1000) <= 1
        last = time.monotonic() + end - time.time()
        look(node, at=last - 0.1)
        await wire.message("token_expiring")
        wire.send(text(type="ping"))
        await wire.message("pong")
        look(node, at=last + 0.1)
        assert (await wire.ending()).code == 4001


async def test_no_connection_ends_without_a_warning(node: Node) -> None:
    """If its end has come before anybody looked, it is warned now and ends five seconds later."""
    async with node.dial("&channels=prices.A") as wire:
        await welcomed(wire)
        late = time.monotonic() + 10_000
        look(node, at=late)
        assert (await wire.message("token_expiring"))["expires_in_ms"] == 5000
        look(node, at=late + 4.9)
        wire.send(text(type="ping"))
        await wire.message("pong")
        look(node, at=late + 5)
        assert (await wire.ending()).code == 4001


async def test_connections_that_began_together_end_one_by_one(node: Node) -> None:
    """Each ends by another part of the last tenth of its age limit early, and knows its end from the beginning."""
    ends = []
    for _ in range(12):
        async with node.dial("&channels=prices.A") as wire:
            assert await wire.shake() == 101
            welcome = await wire.message("welcome")
            ends.append((welcome["expires_at"] - welcome["ts"]) / 3_600_000)
    assert all(0.9 <= end <= 1 for end in ends)
    assert max(ends) - min(ends) > 0.02


async def test_accepted_sockets_have_the_options(node: Node) -> None:
    """The kernel queues few unsent bytes, and ends a connection without acknowledgements."""
    async with node.dial("&channels=prices.A") as wire:
        await welcomed(wire)
        sock = node.connections[0].transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == NOTSENT_LOWAT_BYTES
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
