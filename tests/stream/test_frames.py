"""Frames that break RFC 6455 or relay.v1: each ends its own connection with its code."""

import itertools
import json
from typing import Any

import pytest
from websockets.frames import Opcode

from tests.support.minted_tokens import dial, released
from tests.support.raw_websocket import RawWebSocket, masked, text
from tests.support.relay_process import Relay

PING = b'{"type":"ping","id":1}'

BROKEN = {
    "binary": (masked(Opcode.BINARY, PING), 1003, "binary"),
    "not json": (masked(Opcode.TEXT, b"hello"), 1008, "malformed"),
    "auth too late": (text(type="auth", token="t"), 1008, "malformed"),
    "too large": (masked(Opcode.TEXT, b" " * 16385), 1009, ""),
    "too large in fragments": (
        masked(Opcode.TEXT, b" " * 10000, fin=False) + masked(Opcode.CONT, b" " * 6385),
        1009,
        "",
    ),
    "a length of 2**62": (b"\x81\xff" + (1 << 62).to_bytes(8, "big"), 1009, ""),
    "invalid utf-8": (masked(Opcode.TEXT, b'{"type":"ping","x":"\xff"}'), 1007, ""),
    "half a character at the end": (masked(Opcode.TEXT, b"\xe2\x82"), 1007, ""),
    "a surrogate": (masked(Opcode.TEXT, b'{"type":"\xed\xa0\x80"}'), 1007, ""),
    "unmasked": (b"\x81\x02{}", 1002, ""),
    "reserved bit 1": (bytes([0b1100_0001]) + masked(Opcode.TEXT, PING)[1:], 1002, ""),
    "reserved bit 3": (bytes([0b1001_0001]) + masked(Opcode.TEXT, PING)[1:], 1002, ""),
    "reserved opcode": (bytes([0b1000_0011]) + masked(Opcode.TEXT, PING)[1:], 1002, ""),
    "reserved control opcode": (bytes([0b1000_1011]) + masked(Opcode.TEXT)[1:], 1002, ""),
    "a fragmented ping": (bytes([0b0000_1001]) + masked(Opcode.PING)[1:], 1002, ""),
    "a ping of 126 bytes": (b"\x89\xfe" + (126).to_bytes(2, "big") + bytes(4 + 126), 1002, ""),
    "a continuation of nothing": (masked(Opcode.CONT, b"x"), 1002, ""),
    "a message inside a message": (
        masked(Opcode.TEXT, b"{", fin=False) + masked(Opcode.TEXT, PING),
        1002,
        "",
    ),
    "a close of one byte": (masked(Opcode.CLOSE, b"\x03"), 1002, ""),
    "a close with 1005": (masked(Opcode.CLOSE, (1005).to_bytes(2, "big")), 1002, ""),
    "a close with 999": (masked(Opcode.CLOSE, (999).to_bytes(2, "big")), 1002, ""),
    "a close whose reason is not utf-8": (masked(Opcode.CLOSE, b"\x03\xe8\xff"), 1007, ""),
    "endless fragments": (masked(Opcode.TEXT, fin=False) + masked(Opcode.CONT, fin=False) * 5000, 4029, ""),
}


_numbers = itertools.count()


async def joined(wire: RawWebSocket) -> dict[str, Any]:
    """Read up to the ack, which the snapshots follow."""
    assert await wire.shake() == 101
    return await wire.message("subscribed")


@pytest.mark.parametrize(("frames", "code", "reason"), BROKEN.values(), ids=list(BROKEN))
async def test_a_broken_frame_ends_one_connection(
    relay: Relay, frames: bytes, code: int, reason: str
) -> None:
    """The close code says what was wrong. Nothing follows the close frame, and others still get prices."""
    channel = f"prices.broken.{next(_numbers)}"
    async with (
        dial(relay, query=f"&channels={channel}") as bad,
        dial(relay, query=f"&channels={channel}") as good,
    ):
        await joined(bad)
        await joined(good)
        bad.send(frames)
        for number in range(3):
            await relay.publish(channel, number)
            message = await good.message("snapshot", "update")
            assert (message["seq"], message["data"]) == (number + 1, number)
        ending = await bad.ending()
        assert ending.code == code
        assert reason in ending.reason
        assert len(ending.reason.encode()) <= 123


async def test_messages_come_in_fragments_with_control_frames_between(relay: Relay) -> None:
    """A message may be cut anywhere, also within a character. A ping between two fragments is answered at once."""
    async with dial(relay) as wire:
        await wire.shake()
        message = json.dumps({"type": "x\u20ac", "id": 5}, ensure_ascii=False).encode()
        cut = message.index(b"\xe2") + 1
        wire.send(masked(Opcode.TEXT, message[:4], fin=False), masked(Opcode.CONT, message[4:cut], fin=False))
        wire.send(masked(Opcode.PING, b"between"), masked(Opcode.PONG, b"nobody asked"))
        wire.send(masked(Opcode.CONT, fin=False), masked(Opcode.CONT, message[cut:]))
        assert (await wire.message())["type"] == "welcome"
        assert (await wire.message())["code"] == "nothing_subscribed"
        assert await wire.frame() == (Opcode.PONG, b"between")
        assert (await wire.message())["id"] == 5


async def test_a_message_byte_by_byte(relay: Relay) -> None:
    """TCP may cut a frame anywhere."""
    async with dial(relay) as wire:
        await wire.shake()
        for byte in text(type="ping", id=6):
            wire.send(bytes([byte]))
            await wire.writer.drain()
        assert (await wire.message("pong"))["id"] == 6


async def test_a_frame_may_be_as_large_as_promised(relay: Relay) -> None:
    """16384 bytes, the number in `welcome`, are accepted: enough for 256 channels of 60 characters."""
    async with dial(relay) as wire:
        await wire.shake()
        names = [f"prices.{'x' * 48}{number:05}" for number in range(256)]
        frame = json.dumps({"type": "subscribe", "id": 1, "channels": names}, separators=(",", ":")).encode()
        wire.send(masked(Opcode.TEXT, frame.ljust(16384)))
        assert len((await wire.message("subscribed"))["channels"]) == 256


async def test_frames_in_the_same_segment_as_the_handshake(relay: Relay) -> None:
    """A client that does not wait for the answer is served in the same way."""
    behind = text(type="subscribe", id=1, channels=["prices.early"]) + text(type="ping", id=2)
    async with dial(relay, behind=behind) as wire:
        assert await wire.shake() == 101
        types = [(await wire.message())["type"] for _ in range(4)]
        assert types == ["welcome", "error", "subscribed", "pong"]


@pytest.mark.parametrize(
    "behind",
    [
        masked(Opcode.CLOSE, (1000).to_bytes(2, "big")),
        masked(Opcode.TEXT, b"\xff"),
        b"\x81\x02{}",
        masked(Opcode.PING) * 20_000,
        text(type="ping") * 20_000,
    ],
    ids=["close", "not utf-8", "unmasked", "pings", "messages"],
)
async def test_garbage_in_the_same_segment_as_the_handshake(relay: Relay, behind: bytes) -> None:
    """The connection ends, the relay writes no traceback, and other connections continue."""
    async with dial(relay, query="&channels=prices.rubbish", behind=behind) as wire:
        await released(relay, wire)
    async with dial(relay, query="&channels=prices.rubbish") as good:
        await joined(good)
        await relay.publish("prices.rubbish", 1)
        await good.message("snapshot", "update")
    assert "Traceback" not in relay.log_path.read_text()


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9bye", (4999).to_bytes(2, "big")])
async def test_a_close_is_answered_with_its_own_code(relay: Relay, payload: bytes) -> None:
    """RFC 6455 §5.5.1. Frames after the client's close are not looked at."""
    async with dial(relay) as wire:
        await wire.shake()
        await wire.message("error")
        wire.send(masked(Opcode.CLOSE, payload), text(type="ping", id=1), b"\xff" * 1000)
        assert await wire.frame() == (Opcode.CLOSE, payload)
        assert await wire.reader.read() == b""
