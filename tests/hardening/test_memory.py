"""Megabytes from outside: tokens, frames, bombs, pings and readers that stop leave the relay's memory where it was.

What is looked at is the highest that the process ever had (VmHWM), since what is freed again can have killed it
before. The peak is set back at the beginning of each abuse, after an ordinary client has been served.
"""

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
from websockets.frames import Opcode

from tests.support.http_client import http_client
from tests.support.minted_tokens import dial, released
from tests.support.raw_http import bearing, exchange, head, knock, upgrade
from tests.support.raw_websocket import PATIENCE_S, RawWebSocket, masked, open_raw_websocket
from tests.support.relay_process import PUBLISHER_KEY, Relay, running
from tests.support.shared_relay import assert_quiet

MIB = 1 << 20
ALLOWED = 8 * MIB
"""What a peak may rise by: buffers of the kernel's reads and Python's arenas, and far less than any of the abuses."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of their own: its memory is looked at."""
    with running(tmp_path_factory.mktemp("memory")) as relay:
        yield relay
    assert_quiet(relay)


def peak(relay: Relay) -> int:
    """Return the most memory that the process has had since the last `forget`, in bytes."""
    assert relay.process is not None
    lines = Path(f"/proc/{relay.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def forget(relay: Relay) -> None:
    """Set the peak to what the process has now (proc_pid_clear_refs(5))."""
    assert relay.process is not None
    Path(f"/proc/{relay.process.pid}/clear_refs").write_text("5")


@contextlib.asynccontextmanager
async def flat(relay: Relay) -> AsyncIterator[None]:
    """Let something happen to the relay; its memory must not have risen, and an ordinary client be served behind."""
    channel = "prices.MEMORY"
    async with relay.connect(query=f"?channels={channel}") as socket:
        await socket.read("subscribed")
        await relay.publish(channel, "before")
        while (await socket.next()).get("data") != "before":
            pass
        forget(relay)
        before = peak(relay)
        yield
        await relay.publish(channel, "behind")
        while (await socket.next()).get("data") != "behind":
            pass
        assert peak(relay) - before < ALLOWED


async def pour(wire: RawWebSocket, pieces: Iterable[bytes]) -> None:
    """Send until the relay has had enough; it must end the connection, and not just stop reading."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(3 * PATIENCE_S):
            for piece in pieces:
                wire.writer.write(piece)
                await wire.writer.drain()


def unfinished(opcode: Opcode, size: int) -> bytes:
    """Return how a masked frame of so many bytes begins."""
    return bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big") + bytes(4)


async def test_tokens_of_5_mb(relay: Relay) -> None:
    """By each way to the gate and to the issuer, eight at once: refused without being kept, or even read to the end."""
    huge = "a" * 5_000_000
    body = json.dumps({"endpoint": huge}).encode()
    length = ("Content-Length", str(len(body)))
    asks: list[tuple[str, list[tuple[str, str]], bytes]] = [
        ("/auth/ws-token", [("Host", "x"), ("Origin", relay.url), ("Cookie", f"access-token={huge}")], b""),
        ("/auth/ws-token", [("Host", "x"), ("Authorization", f"Bearer {huge}")], b""),
        (f"/auth/ws-token?token={huge}", [("Host", "x"), ("Origin", relay.url)], b""),
        ("/auth/ws-token", [("Host", "x"), ("Authorization", f"Bearer {relay.session()}"), length], body),
    ]
    async with flat(relay):
        for _ in range(2):
            answers = await asyncio.gather(
                *(knock(relay, fields=[*upgrade(relay), bearing(huge)]) for _ in range(4)),
                *(knock(relay, f"/ws/prices?token={huge}") for _ in range(4)),
                *(exchange(relay.ports[0], head("POST", path, fields) + body) for path, fields, body in asks),
            )
            assert {answer.status for answer in answers} <= {0, 400, 401, 413, 414, 431}


async def test_frames_of_50_mb(relay: Relay) -> None:
    """As one frame, in fragments, as the token, and to refresh: the end, as soon as the length is known or at 16 KiB.

    Who goes on sending may lose the close frame to the reset, so that the end is looked up in the audit log.
    """
    chunks = [b"a" * MIB] * 50
    fragments = [masked(Opcode.TEXT, b"a" * 16_000, fin=False)]
    fragments += [masked(Opcode.CONT, b"a" * 16_000, fin=False)] * 3200
    token = [unfinished(Opcode.TEXT, 50 * MIB) + b'{"type":"auth","token":"', *chunks]
    refresh = [unfinished(Opcode.TEXT, 50 * MIB) + b'{"type":"refresh","token":"', *chunks]
    binary = [unfinished(Opcode.BINARY, 50 * MIB), *chunks]
    async with flat(relay):
        for pieces in (refresh, binary, fragments):
            async with dial(relay) as wire:
                assert await wire.shake() == 101
                await wire.message("error")
                await pour(wire, pieces)
                await released(relay, wire)
        async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
            assert await wire.shake() == 101
            await pour(wire, token)
            await released(relay, wire)
    ends = [record for record in relay.audit() if record["event"]["action"] == "connection.closed"]
    assert [end["event"]["reason"] for end in ends].count("frame_too_large") == 3


async def test_a_bomb_is_not_unpacked(relay: Relay) -> None:
    """Kilobytes that deflate made of 15 MB: compression was offered and declined, so the frame is refused as it is."""
    pack = zlib.compressobj(9, wbits=-15)
    bomb = pack.compress(b'{"type":"ping","x":"' + b"a" * 15 * MIB) + pack.flush(zlib.Z_SYNC_FLUSH)
    assert 15_000 < len(bomb) < 16_384, "a frame that is not too large by itself"
    compressed = bytes([masked(Opcode.TEXT)[0] | 0x40]) + masked(Opcode.TEXT, bomb)[1:]
    async with flat(relay):
        for _ in range(4):
            offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            async with dial(relay, headers=offer) as wire:
                assert await wire.shake() == 101
                await wire.message("error")
                wire.send(compressed)
                assert (await wire.ending()).code == 1002


@pytest.mark.parametrize("when", ["with a token", "right behind the handshake", "before the token"])
async def test_30_mb_of_pings(relay: Relay, when: str) -> None:
    """From a client that reads none of the answers, by the largest and by the smallest pings: they don't pile up."""
    largest, smallest = masked(Opcode.PING, b"x" * 125) * 8000, masked(Opcode.PING) * 170_000
    async with flat(relay):
        for pieces in ([largest] * 30, [smallest] * 30):
            flood = (
                open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url, receive_buffer=4096)
                if when == "before the token"
                else dial(relay, receive_buffer=4096)
            )
            async with flood as wire:
                if when != "right behind the handshake":
                    assert await wire.shake() == 101
                if when == "with a token":
                    await wire.message("error")
                await pour(wire, pieces)
                await released(relay, wire)


async def test_30_mb_of_pings_from_a_publisher(relay: Relay) -> None:
    """The pongs don't pile up: nothing more is read from it, and it waits while others publish."""
    key = f"Authorization: Bearer {PUBLISHER_KEY}\r\n"
    async with (
        flat(relay),
        open_raw_websocket(
            relay.ports[2], "/v1/ingest", origin=relay.internal_url, headers=key, receive_buffer=4096
        ) as wire,
    ):
        assert await wire.shake() == 101
        flood = asyncio.create_task(pour(wire, [masked(Opcode.PING, b"x" * 125) * 8000] * 30))
        for value in range(200):
            assert (await relay.publish("prices.MEMORY", value)).status_code == 200
        flood.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flood


async def test_a_paused_reader_of_20_mb(relay: Relay) -> None:
    """Five who stop reading while 20 MB pass by, as fast as they can be published: nothing is kept for them.

    One who reads gets every channel's values in order, and the newest at the end. So do the five when they go on, if
    that is within the thirty seconds after which they are let go.
    """
    channels = [f"prices.paused.P{number:02}" for number in range(40)]
    last = 500

    async def until_last(wire: RawWebSocket) -> None:
        seen = dict.fromkeys(channels, -1)
        while any(number != last for number in seen.values()):
            message = await wire.message("snapshot", "update")
            assert message["data"]["n"] > seen[message["channel"]]
            seen[message["channel"]] = message["data"]["n"]

    async with contextlib.AsyncExitStack() as stack:
        query = "&channels=prices.paused.*"
        good = await stack.enter_async_context(dial(relay, query=query))
        paused = [
            await stack.enter_async_context(dial(relay, query=query, receive_buffer=4096)) for _ in range(5)
        ]
        for wire in (good, *paused):
            assert await wire.shake() == 101
            await wire.message("subscribed")
        publisher = await stack.enter_async_context(
            http_client(headers={"Authorization": f"Bearer {PUBLISHER_KEY}"})
        )

        async def publish(numbers: range) -> None:
            pad = "x" * 900
            messages = [
                {"channel": channel, "data": {"n": number, "pad": pad}}
                for number in numbers
                for channel in channels
            ]
            answer = await publisher.post(
                f"{relay.internal_url}/v1/publish/batch", json={"messages": messages}
            )
            assert answer.status_code == 200, answer.text

        await publish(range(25))
        async with flat(relay):
            reading = asyncio.create_task(until_last(good))
            for start in range(25, last, 25):
                await publish(range(start, start + 25))
            await publish(range(last, last + 1))
            await reading
        for wire in paused:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await until_last(wire)


async def test_handshakes_of_a_megabyte_are_cut_off(relay: Relay) -> None:
    """The library would keep 128 headers of 8 KB for each connection that never ends its head."""
    line = b"X-Filler: " + b"f" * 8000 + b"\r\n"
    async with flat(relay):
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[1])
            with contextlib.suppress(ConnectionError):
                writer.write(head("GET", "/ws/prices", upgrade(relay))[:-2] + line * 100)
                await writer.drain()
            async with asyncio.timeout(PATIENCE_S):
                with contextlib.suppress(ConnectionError):
                    assert await reader.readline() in (
                        b"",
                        b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
                    )
            writer.close()


async def test_requests_piled_up_and_endless_trailers_are_cut_off(relay: Relay) -> None:
    """On the public listener and the internal one, without any credential. The requests are read one by one."""
    last = head("GET", "/", [("Host", "127.0.0.1"), ("Connection", "close")])
    pile = head("GET", "/", [("Host", "127.0.0.1")]) * 1000 + last
    chunked = [("Host", "127.0.0.1"), ("Transfer-Encoding", "chunked")]
    trailers = head("POST", "/auth/ws-token", chunked) + b"0\r\n" + b"X: y\r\n" * 200_000
    async with flat(relay):
        for port in (relay.ports[0], relay.ports[2]):
            for data in (pile, trailers) * 5:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.suppress(ConnectionError):
                    writer.write(data)
                    await writer.drain()
                async with asyncio.timeout(PATIENCE_S):
                    with contextlib.suppress(ConnectionError):
                        await reader.read()
                writer.close()
