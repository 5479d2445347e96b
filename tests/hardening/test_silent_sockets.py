"""Slowloris and silent sockets: a connection that sends nothing, or sends slowly, takes a place only for a short time.

The public HTTP listener's part of this is in tests/web/test_uvicorn_runner.py, where the test's clock runs faster.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.raw_http import bearing, head, knock, read_answer, upgrade
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet

LIMIT = 20
LAGGARDS = 2 * LIMIT - 4
ROOM = 4 * LIMIT
"""Connections that the relay takes at all."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that lets an address have 20 connections without a token."""
    folder = tmp_path_factory.mktemp("silent")
    with running(folder, limits=f"unauthenticated_per_address = {LIMIT}\nconnections = {ROOM}") as relay:
        yield relay
    assert_quiet(relay)


@contextlib.asynccontextmanager
async def opened(
    port: int, count: int, *, sent: bytes = b"", addresses: int = 1
) -> AsyncIterator[list[Streams]]:
    """Open so many connections from each address. They send some bytes and then nothing."""
    pairs = [
        await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{1 + number % addresses}", 0))
        for number in range(count * addresses)
    ]
    try:
        for _, writer in pairs:
            with contextlib.suppress(ConnectionError):  # cut off already
                writer.write(sent)
                await writer.drain()
        yield pairs
    finally:
        for _, writer in pairs:
            writer.close()


async def all_closed(pairs: list[Streams]) -> None:
    """Wait until the other side has ended each connection."""
    async with asyncio.timeout(30):
        for reader, _ in pairs:
            with contextlib.suppress(ConnectionError):
                await reader.read()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Send one byte after the other until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.2)  # slowness is the attack


@pytest.mark.parametrize("sent", ["", "handshake"])
async def test_many_addresses_leave_room_for_connections_with_a_token(relay: Relay, sent: str) -> None:
    """Twice as many connections without a token as the relay takes: the oldest of them end, and a token gets in."""
    early = head("GET", "/ws/prices", upgrade(relay)) if sent else b""
    async with opened(relay.ports[1], LIMIT, sent=early, addresses=8) as silent:
        token = await relay.token()
        found = await knock(relay, fields=[*upgrade(relay), bearing(token)], source="127.0.0.20")
        assert found.status == 101
        await all_closed(silent)


async def test_silent_connections_leave_room_for_others(relay: Relay) -> None:
    """36 sockets that say (next to) nothing: 429 for their address, a welcome for another, then the end."""
    half = head("GET", "/ws/prices", upgrade(relay))[:-2]
    async with (
        opened(relay.ports[1], LAGGARDS // 2) as silent,
        opened(relay.ports[1], LAGGARDS // 2, sent=half + b"X-Slow: ") as slow,
        asyncio.TaskGroup() as drips,
    ):
        tasks = [drips.create_task(trickle(writer)) for _, writer in slow]
        token = await relay.token()
        refused = await knock(relay, fields=[*upgrade(relay), bearing(token)])
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert refused.json["retryable"] is True
        assert int(refused.all("retry-after")[0]) >= 1
        elsewhere = await knock(relay, fields=[*upgrade(relay), bearing(token)], source="127.0.0.2")
        assert elsewhere.status == 101, "the refusal did not use the token up, and another address is let in"
        await all_closed(silent + slow)
        for task in tasks:
            task.cancel()
    token = await relay.token()
    assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101, (
        "the room is free again"
    )
    await relay.audited("connect.denied", reason="address_limit")


async def test_one_address_can_not_take_all_the_room(relay: Relay) -> None:
    """Of more silent sockets than the relay takes at all, half of the room stay: another address finds its place."""
    async with opened(relay.ports[1], 2 * ROOM) as pairs:
        token = await relay.token()
        answer = await knock(relay, fields=[*upgrade(relay), bearing(token)], source="127.0.0.2")
        assert answer.status == 101
        await all_closed(pairs)


async def test_waiting_for_a_token_takes_room_too(relay: Relay) -> None:
    """Sockets that were upgraded and sent no token yet count like silent ones, and end with 3008."""
    handshake = head("GET", "/ws/prices", upgrade(relay))
    async with opened(relay.ports[1], LIMIT, sent=handshake) as pairs:
        for reader, _ in pairs:
            assert (await read_answer(reader)).status == 101
        assert (await knock(relay)).status == 429
        async with asyncio.timeout(20):
            for reader, _ in pairs:
                assert await reader.readexactly(4) == b"\x88\x0f\x0b\xc0", "a close frame, 3008"
    await relay.audited("connect.denied", reason="token_timeout")
