"""Slowloris: a thousand connections that send a byte a second are closed in time, and a real client gets in meanwhile.

They come from twenty addresses, so that no limit of one address is what stops them.
"""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.support.minted_tokens import process_of
from tests.support.raw_http import asking_for_events, bearing, head, knock, upgrade
from tests.support.raw_websocket import until
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet

CONNECTIONS = 1000
ADDRESSES = [f"127.0.6.{number}" for number in range(1, 21)]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with the limits that it has by default."""
    with running(tmp_path_factory.mktemp("slowloris")) as relay:
        yield relay
    assert_quiet(relay)


async def drip(writers: list[asyncio.StreamWriter]) -> None:
    """Send a byte on each connection each second, for as long as any of them is open."""
    while True:
        for writer in writers:
            if not writer.is_closing():
                writer.write(b"a")
        await asyncio.sleep(1)  # slowness is the attack


async def gone(reader: asyncio.StreamReader) -> None:
    """Wait until the relay has ended a connection, and check that it was told nothing first."""
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


async def a_real_client(relay: Relay, pairs: list[Streams]) -> None:
    """Connect and read prices while the slow ones are there, see them end, and read on."""
    async with relay.connect(query="?channels=prices.SLOW") as socket:
        await socket.read("subscribed")
        await relay.publish("prices.SLOW", 1)
        assert (await socket.read("snapshot"))["data"] == 1
        token = await relay.token()
        answer = await knock(relay, fields=[*upgrade(relay), bearing(token)], source=ADDRESSES[0])
        assert answer.status == 101, "fifty of an address leave room for its real client"
        async with asyncio.timeout(30):
            await asyncio.gather(*(gone(reader) for reader, _ in pairs))
        await relay.publish("prices.SLOW", 2)
        assert (await socket.read("update"))["data"] == 2


async def test_a_thousand_slow_heads(relay: Relay) -> None:
    """Half of them stop after the first bytes, half within a header: all are ended, and prices flow all the while."""
    halves = [
        head("GET", "/ws/prices", fields)[:-2] + b"X-Slow: "
        for fields in (upgrade(relay), asking_for_events(relay))
    ]
    pairs: list[Streams] = []
    before = process_of(relay).num_fds()
    try:
        for number in range(CONNECTIONS):
            source = ADDRESSES[number % len(ADDRESSES)]
            pairs.append(
                await asyncio.open_connection("127.0.0.1", relay.ports[1], local_addr=(source, 0), limit=1024)
            )
            pairs[-1][1].write(halves[number // 2 % 2] if number % 2 else b"G")
        async with asyncio.TaskGroup() as drips:
            dripping = drips.create_task(drip([writer for _, writer in pairs]))
            await until(lambda: process_of(relay).num_fds() >= before + CONNECTIONS)
            await a_real_client(relay, pairs)
            dripping.cancel()
    finally:
        for _, writer in pairs:
            writer.transport.abort()
    await until(lambda: process_of(relay).num_fds() < before + 20)
