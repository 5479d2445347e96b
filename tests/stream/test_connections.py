"""The ends of connections: the close code, the initiator, the audit event, and that nothing is left."""

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from websockets.frames import Opcode

from tests.support.minted_tokens import audited, connected, dial, process_of, released
from tests.support.raw_websocket import RawWebSocket, masked, open_raw_websocket, text, until
from tests.support.relay_process import Relay, running

GONE = (1000).to_bytes(2, "big")


async def welcomed(wire: RawWebSocket) -> str:
    """Read the handshake and `welcome`; return the connection's id."""
    assert await wire.shake() == 101
    return str((await wire.message("welcome"))["connection"])


async def records_of(relay: Relay, connection: str) -> list[dict[str, Any]]:
    """Wait until the audit log has the end of a connection, and return its records."""

    def found() -> list[dict[str, Any]]:
        return [r for r in audited(relay) if r["relay"].get("connection", {}).get("id") == connection]

    await until(lambda: any(record["event"]["action"] == "connection.closed" for record in found()))
    return found()


async def closing(relay: Relay, connection: str) -> tuple[int, str, str]:
    """Return close code, initiator and reason of a connection's end."""
    record = (await records_of(relay, connection))[-1]
    details = record["relay"]["connection"]
    return details["close_code"], details["initiator"], record["event"]["reason"]


async def test_the_audit_log_has_a_connections_life(relay: Relay) -> None:
    """The audit log has accepted, subscribed, refused and closed in this order, with the number of deliveries."""
    async with dial(relay, query="&channels=prices.life,depth.X", session="session-life") as wire:
        connection = await welcomed(wire)
        await wire.message("subscribed")
        for number in range(3):
            await relay.publish("prices.life", number)
            await wire.message("snapshot", "update")
        wire.send(text(type="subscribe", id=1, channels=["prices..", "prices.more"]))
        await wire.message("subscribed")
        wire.send(masked(Opcode.CLOSE, (4321).to_bytes(2, "big")))
        assert (await wire.ending()).code == 4321
    records = await records_of(relay, connection)
    assert [
        (r["event"]["action"], r["event"].get("reason"), r["relay"].get("channels")) for r in records
    ] == [
        ("connect.accepted", None, ["prices.life"]),
        ("subscribe.denied", "channel_forbidden", ["depth.X"]),
        ("subscribe.accepted", None, ["prices.more"]),
        ("subscribe.denied", "request_malformed", ["prices.."]),
        ("connection.closed", "client_closed", None),
    ]
    assert {record["relay"]["session"]["ref"] for record in records} == {"session-life"}
    assert len({record["relay"]["token"]["jti"] for record in records}) == 1
    end = records[-1]["relay"]["connection"]
    assert (end["close_code"], end["initiator"], end["messages_out"], end["conflated"]) == (
        4321,
        "client",
        3,
        0,
    )
    assert end["bytes_out"] > 400
    assert end["duration_ms"] >= 0


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (masked(Opcode.CLOSE), (1005, "client", "client_closed")),
        (masked(Opcode.BINARY, b"x"), (1003, "relay", "frame_binary")),
        (masked(Opcode.TEXT, b"x"), (1008, "relay", "frame_malformed")),
        (masked(Opcode.TEXT, b"x" * 20_000), (1009, "relay", "frame_too_large")),
        (masked(Opcode.TEXT, b"\xff"), (1007, "relay", "frame_malformed")),
        (b"\x81\x00", (1002, "relay", "frame_malformed")),
        (masked(Opcode.PING) * 50, (4029, "relay", "frames_too_fast")),
        (text(type="ping") * 50, (4029, "relay", "frames_too_fast")),
        (text(type="ping") * 5000, (4029, "relay", "frames_too_fast")),
    ],
    ids=["close", "binary", "malformed", "too large", "not utf-8", "unmasked", "pings", "messages", "flood"],
)
async def test_the_audit_log_says_who_ended_it(
    relay: Relay, frames: bytes, expected: tuple[int, str, str]
) -> None:
    """Each kind of end has its close code, initiator and reason. The client keeps its TCP connection open."""
    async with dial(relay) as wire:
        connection = await welcomed(wire)
        wire.send(frames)
        assert await closing(relay, connection) == expected
        await released(relay, wire)


async def test_a_reset_and_a_half_close_are_links_that_broke(relay: Relay) -> None:
    """Without a close frame the code is 1006 and the initiator the network. Other connections continue."""
    async with dial(relay) as one, dial(relay) as other, dial(relay, query="&channels=prices.links") as good:
        connections = [await welcomed(one), await welcomed(other)]
        await welcomed(good)
        one.reset()
        other.writer.write_eof()
        for connection in connections:
            assert await closing(relay, connection) == (1006, "network", "link_lost")
        await released(relay, other)
        await relay.publish("prices.links", 1)
        await good.message("snapshot")


async def test_a_client_that_keeps_its_tcp_connection_after_a_close_is_cut_off(relay: Relay) -> None:
    """The client does not answer the FIN either. The relay cuts the connection after a second."""
    async with dial(relay) as asking, dial(relay, query="&channels=prices.stays") as reading:
        for wire in (asking, reading):
            await welcomed(wire)
            wire.send(masked(Opcode.CLOSE, GONE))
        await relay.publish("prices.stays", 1)
        await released(relay, asking, reading)


async def test_an_unanswered_close_is_cut_off_after_a_second(relay: Relay) -> None:
    """The relay closes, the client neither reads nor answers, and a second later the connection is gone."""
    async with dial(relay) as wire:
        await welcomed(wire)
        wire.send(masked(Opcode.BINARY, b"x"))
        await released(relay, wire)
        assert (await wire.ending()).code == 1003


async def test_the_eleventh_connection_of_a_session_replaces_the_oldest(relay: Relay) -> None:
    """A session may have ten connections. One more closes the first with 4504. Other sessions are not affected."""
    async with dial(relay, session="someone-else") as other:
        await welcomed(other)
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(dial(relay, session="eleven")) for _ in range(11)]
            connections = [await welcomed(wire) for wire in wires]
            ending = await wires[0].ending()
            assert (ending.code, ending.reason) == (4504, "replaced")
            assert await closing(relay, connections[0]) == (4504, "relay", "connection_replaced")
            for wire in (*wires[1:], other):
                wire.send(text(type="ping", id=1))
                await wire.message("pong")


async def test_clients_that_stay_after_their_close_do_not_pile_up(relay: Relay) -> None:
    """A client connects, closes and keeps its TCP connection, thirty times. Its session never keeps more than ten."""
    async with AsyncExitStack() as stack:
        for _ in range(30):
            wire = await stack.enter_async_context(dial(relay, session="hoarder"))
            await welcomed(wire)
            wire.send(masked(Opcode.CLOSE, GONE))
        await until(lambda: not connected(relay))


async def test_a_client_that_leaves_during_the_handshake(relay: Relay) -> None:
    """A client that leaves while its token is looked up causes no error, and its end is in the audit log."""
    for _ in range(20):
        async with dial(relay, query="&channels=prices.leaving") as wire:
            await wire.writer.drain()
            wire.reset()
    for _ in range(20):
        async with dial(relay, query="&channels=prices.leaving") as wire:
            wire.writer.write_eof()
            with suppress(ConnectionResetError):
                await wire.reader.read()
    await relay.publish("prices.leaving", 1)
    await until(lambda: not connected(relay))
    accepted = {
        r["relay"]["connection"]["id"] for r in audited(relay) if r["event"]["action"] == "connect.accepted"
    }
    for connection in accepted:
        await records_of(relay, connection)
    assert "Traceback" not in relay.log_path.read_text()


async def test_two_hundred_connections_leave_no_descriptor_open(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """After every kind of end, no file descriptor stays open and each connection has its audit event."""
    with running(tmp_path_factory.mktemp("leaving"), limits="unauthenticated_per_address = 20") as relay:
        process = process_of(relay)

        async def come_and_go(number: int) -> None:
            async with dial(relay, query="&channels=prices.A,prices.*") as wire:
                await welcomed(wire)
                if number % 4 == 0:
                    wire.send(masked(Opcode.CLOSE, GONE))
                    assert (await wire.ending()).code == 1000
                elif number % 4 == 1:
                    wire.writer.write_eof()
                elif number % 4 == 2:
                    wire.reset()
            async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
                if number % 2:
                    await wire.shake()

        await come_and_go(0)  # what is opened once and kept is open now
        await until(lambda: not connected(relay))
        before = process.num_fds()
        for start in range(0, 200, 10):
            await asyncio.gather(*(come_and_go(start + number) for number in range(10)))
        await until(lambda: not connected(relay) and process.num_fds() <= before)
        await until(lambda: _closed(relay) == 201)
        # the address is not counted for any of them any more: 21 at once would be one too many
        async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
            assert await wire.shake() == 101
        assert "Traceback" not in relay.log_path.read_text()


def _closed(relay: Relay) -> int:
    return sum(record["event"]["action"] == "connection.closed" for record in audited(relay))
