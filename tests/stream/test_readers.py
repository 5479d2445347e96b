"""Clients that read slowly, never read, or only write: their cost is bounded, and others are not affected."""

import asyncio
from collections.abc import Sequence
from typing import Any

from websockets.frames import Opcode

from tests.support.http_client import http_client
from tests.support.minted_tokens import audited, dial, process_of, released
from tests.support.raw_websocket import RawWebSocket, masked, open_raw_websocket, text
from tests.support.relay_process import PUBLISHER_KEY, Relay

CHANNELS = [f"prices.readers.S{number:02}" for number in range(20)]
PADDING = "x" * 900


async def publish_rounds(relay: Relay, rounds: Sequence[int]) -> None:
    """Publish so many rounds of all channels, about 20 KB per round, many values per request."""
    async with http_client(
        base_url=relay.internal_url, headers={"Authorization": f"Bearer {PUBLISHER_KEY}"}
    ) as client:
        for start in range(0, len(rounds), 40):
            messages = [
                {"channel": channel, "data": {"round": number, "padding": PADDING}}
                for number in rounds[start : start + 40]
                for channel in CHANNELS
            ]
            answer = await client.post("/v1/publish/batch", json={"messages": messages})
            assert answer.status_code == 200, answer.text


async def read_rounds(wire: RawWebSocket, last: int) -> dict[str, list[int]]:
    """Read until every channel has come to the round `last`; return the rounds seen of each."""
    seen: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
    while any(not rounds or rounds[-1] != last for rounds in seen.values()):
        message = await wire.message("snapshot", "update")
        seen[message["channel"]].append(message["data"]["round"])
    return seen


def memory(relay: Relay) -> int:
    return int(process_of(relay).memory_info().rss)


async def test_a_reader_that_stops_costs_nobody_anything(relay: Relay) -> None:
    """24 MB pass by three who don't read: the relay keeps none of it, and one who reads gets on as if alone.

    Those who read again come to the newest value of each channel by way of few old ones.
    """
    query = "&channels=prices.readers.*"
    async with (
        dial(relay, query=query) as good,
        dial(relay, query=query, receive_buffer=4096) as slow,
        dial(relay, query=query, receive_buffer=4096) as slower,
        dial(relay, query=query, receive_buffer=4096),
    ):
        assert await good.shake() == 101
        await publish_rounds(relay, range(40))  # the relay's own buffers grow to their size
        await read_rounds(good, 39)
        before = memory(relay)
        reading = asyncio.create_task(read_rounds(good, 1239))
        await publish_rounds(relay, range(40, 1240))
        seen = await reading
        assert memory(relay) - before < 8_000_000
        assert all(rounds == sorted(set(rounds)) for rounds in seen.values())
        for wire in (slow, slower):
            assert await wire.shake() == 101
            late = await read_rounds(wire, 1239)
            assert all(rounds == sorted(set(rounds)) for rounds in late.values())
            assert sum(map(len, late.values())) < 20 * 100
        await publish_rounds(relay, [2000])
        for wire in (good, slow, slower):
            await read_rounds(wire, 2000)


async def test_the_audit_log_counts_what_a_slow_reader_missed(relay: Relay) -> None:
    """`conflated` counts the values that newer ones replaced, `messages_out` the values that were sent."""
    async with dial(relay, query="&channels=prices.readers.*", receive_buffer=4096) as slow:
        assert await slow.shake() == 101
        connection = (await slow.message("welcome"))["connection"]
        await slow.message("subscribed")
        await publish_rounds(relay, range(3000, 3400))
        late = await read_rounds(slow, 3399)
        slow.send(masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))
        await slow.ending()
    async with asyncio.timeout(10):
        record = await _closed(relay, connection)
    published, came = 400 * 20, sum(map(len, late.values()))
    assert record["conflated"] > published / 2
    assert record["messages_out"] >= came
    assert record["messages_out"] + record["conflated"] >= published


async def _closed(relay: Relay, connection: str) -> dict[str, Any]:
    while True:
        for record in audited(relay):
            details: dict[str, Any] = record["relay"].get("connection", {})
            if details.get("id") == connection and record["event"]["action"] == "connection.closed":
                return details
        await asyncio.sleep(0.01)  # the log is a file: there is nothing to await


async def test_pings_without_reading(relay: Relay) -> None:
    """A client sends large pings and reads no pong. Its pings are no longer read, then it is closed. Memory stays."""
    async with dial(relay, receive_buffer=4096) as flood, dial(relay, query="&channels=prices.flood") as good:
        assert await good.shake() == 101
        await good.message("subscribed")
        before = memory(relay)
        flood.send(masked(Opcode.PING, b"x" * 125) * 40_000)
        for number in range(3):
            await relay.publish("prices.flood", number)
            assert (await good.message("snapshot", "update"))["data"] == number
        await released(relay, flood)
        assert memory(relay) - before < 8_000_000


async def test_tiny_frames_by_the_thousand(relay: Relay) -> None:
    """One read full of pings, messages or empty fragments ends the connection. Prices continue for others."""
    floods = [masked(Opcode.PING) * 40_000, masked(Opcode.TEXT, b"1") * 40_000, text(type="ping") * 10_000]
    floods.append(masked(Opcode.TEXT, fin=False) + masked(Opcode.CONT, fin=False) * 40_000)
    async with dial(relay, query="&channels=prices.tiny") as good:
        assert await good.shake() == 101
        for number, frames in enumerate(floods):
            async with dial(relay) as flood:
                assert await flood.shake() == 101
                flood.send(frames)
                await relay.publish("prices.tiny", number)
                assert (await good.message("snapshot", "update"))["data"] == number
                await released(relay, flood)


async def test_the_first_frame_has_the_token_or_is_the_last(relay: Relay) -> None:
    """Any frame but `auth` before the token ends the connection, and nothing is sent before that."""
    async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
        assert await wire.shake() == 101
        wire.send(text(type="ping"))
        ending = await wire.ending()
        assert (ending.code, ending.before) == (1008, [])
