"""RFC 6455 clause by clause, where `test_frames.py` has no test: what a server must refuse, accept and send.

Each case names the section that asks for it.
"""

import asyncio
import itertools
import struct

import pytest
from websockets.frames import Opcode

from tests.support.minted_tokens import dial
from tests.support.raw_websocket import PATIENCE_S, RawWebSocket, masked, text
from tests.support.relay_process import PUBLISHER_KEY, Relay

NO_MASK = bytes(4)
"""A masking key of zeros, which is a key like any other and leaves the payload as it is."""
NORMAL = (1000).to_bytes(2, "big")
PING = b'{"type":"ping","id":7}'
_numbers = itertools.count()


def frame(first: int, payload: bytes = b"", *, length: bytes | None = None, key: bytes = NO_MASK) -> bytes:
    """Return a masked frame that begins with the byte `first`, and has its length written as told."""
    if length is None:
        short = len(payload) < 126
        length = bytes([len(payload)]) if short else b"\x7e" + len(payload).to_bytes(2, "big")
    mask = (key * (len(payload) // 4 + 1))[: len(payload)]
    payload = bytes(byte ^ bits for byte, bits in zip(payload, mask, strict=True))
    return bytes([first, length[0] | 0x80]) + length[1:] + key + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    """Return a close frame's payload."""
    return code.to_bytes(2, "big") + reason


async def joined(wire: RawWebSocket) -> None:
    """Read up to where the client may begin to talk."""
    assert await wire.shake() == 101
    assert (await wire.message("error"))["code"] == "nothing_subscribed"


REFUSED = {
    **{f"§5.2 opcode {opcode:#x}": (frame(0x80 | opcode), 1002) for opcode in (*range(3, 8), *range(11, 16))},
    **{
        f"§5.2 {name} on a {kind}": (frame(0x80 | bit | opcode, payload), 1002)
        for name, bit in (("RSV1", 0x40), ("RSV2", 0x20), ("RSV3", 0x10), ("all RSV", 0x70))
        for kind, opcode, payload in (("text", 1, PING), ("ping", 9, b""), ("close", 8, NORMAL))
    },
    "§5.2 RSV1 on a continuation": (frame(0x01, b"{") + frame(0xC0, b"}"), 1002),
    "§5.2 a length with its first bit set": (
        frame(0x81, length=b"\x7f" + (1 << 63).to_bytes(8, "big")),
        1009,
    ),
    "§5.1 an unmasked ping": (b"\x89\x00", 1002),
    "§5.1 an unmasked pong": (b"\x8a\x00", 1002),
    "§5.1 an unmasked close": (b"\x88\x02" + NORMAL, 1002),
    "§5.1 an unmasked continuation": (frame(0x01, b"{") + b"\x80\x01}", 1002),
    "§5.5 a fragmented pong": (frame(0x0A), 1002),
    "§5.5 a fragmented close": (frame(0x08, NORMAL), 1002),
    "§5.5 a pong of 126 bytes": (frame(0x8A, bytes(126)), 1002),
    "§5.5 a close of 126 bytes": (frame(0x88, closing(1000, b"x" * 124)), 1002),
    "§5.5 a ping of 64 KiB": (frame(0x89, length=b"\x7f" + (1 << 16).to_bytes(8, "big")), 1009),
    "§5.4 the end of no message": (frame(0x80), 1002),
    "§5.4 a continuation after a whole message": (frame(0x81, PING) + frame(0x80, b"x"), 1002),
    "§5.4 a new message within one": (frame(0x01, b"{") + frame(0x01, b"{"), 1002),
    "§5.4 binary within text": (frame(0x01, b"{") + frame(0x82, b"x"), 1002),
    "§5.6 binary in fragments": (frame(0x02, b"x") + frame(0x80, b"y"), 1003),
    "§8.1 not UTF-8, in the first fragment": (frame(0x01, b"\xff") + frame(0x80, b"x"), 1007),
    "§8.1 not UTF-8, in the last fragment": (frame(0x01, PING) + frame(0x80, b"\xc3"), 1007),
    "§8.1 a character that two fragments spoil": (frame(0x01, b"\xe2") + frame(0x80, b"\x28\xa1"), 1007),
    "§8.1 an overlong slash": (frame(0x81, b"\xc0\xaf"), 1007),
    "§8.1 beyond Unicode": (frame(0x81, b"\xf4\x90\x80\x80"), 1007),
    "§8.1 a reason that ends within a character": (frame(0x88, closing(1000, b"\xe2\x82")), 1007),
    "§8.1 a reason with a surrogate": (frame(0x88, closing(1000, b"\xed\xa0\x80")), 1007),
    **{
        f"§7.4 a close with {code}": (frame(0x88, closing(code)), 1002)
        for code in (0, 1004, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize(("frames", "code"), REFUSED.values(), ids=list(REFUSED))
async def test_what_the_rfc_forbids_ends_the_connection(relay: Relay, frames: bytes, code: int) -> None:
    """One close frame with its code (§7.1.7) is the last frame (§5.5.1). Later bytes of the client are ignored."""
    async with dial(relay) as wire:
        await joined(wire)
        wire.send(frames, text(type="ping", id=9), masked(Opcode.PING, b"still there?"))
        ending = await wire.ending()
        assert (ending.code, [m for m in ending.before if m.get("id") == 9]) == (code, [])
        assert len(ending.reason.encode()) <= 123, "§5.5: 125 bytes with the code"


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3003, 3999, 4000, 4501, 4999]
)
async def test_a_code_that_may_be_sent_is_echoed(relay: Relay, code: int) -> None:
    """§5.5.1 and §7.4: all registered codes, and both private ranges, with the longest reason."""
    reason = "€".encode() * 41
    async with dial(relay) as wire:
        await joined(wire)
        wire.send(masked(Opcode.CLOSE, closing(code, reason)))
        assert await wire.frame() == (Opcode.CLOSE, closing(code, reason))
        assert await wire.reader.read() == b"", "§7.1.1: the server closes the TCP connection first"


async def test_a_second_close_is_not_answered(relay: Relay) -> None:
    """§5.5.1: after a close nothing is sent, and §1.4: nothing that comes is looked at, a broken frame included."""
    async with dial(relay) as wire:
        await joined(wire)
        behind = masked(Opcode.CLOSE, closing(1001)), masked(Opcode.PING), b"\xff" * 500
        wire.send(masked(Opcode.CLOSE, NORMAL), *behind)
        assert await wire.frame() == (Opcode.CLOSE, NORMAL)
        assert await wire.reader.read() == b""


@pytest.mark.parametrize("answer", [NORMAL, b"", closing(1003, b"binary"), closing(4999, b"as I please")])
async def test_an_answered_close_ends_the_tcp_connection(relay: Relay, answer: bytes) -> None:
    """§7.1.1: the client answers with any code, and the server closes TCP. Before that pings are answered (§5.5.2)."""
    channel = f"prices.answered.A{next(_numbers)}"
    async with dial(relay, query=f"&channels={channel}") as wire:
        assert await wire.shake() == 101
        await wire.message("subscribed")
        wire.send(masked(Opcode.BINARY, b"x"), text(type="ping", id=1))
        assert await wire.frame() == (Opcode.CLOSE, closing(1003, b"binary"))
        await relay.publish(channel, 1)
        wire.send(text(type="ping", id=2), masked(Opcode.PING, b"late"), masked(Opcode.CLOSE, answer))
        assert await wire.frame() == (Opcode.PONG, b"late")
        async with asyncio.timeout(PATIENCE_S):
            assert await wire.reader.read() == b""


async def test_a_close_within_a_message_ends_it(relay: Relay) -> None:
    """§5.4 lets control frames stand between fragments: a close there is answered, and the half message dropped."""
    async with dial(relay) as wire:
        await joined(wire)
        wire.send(frame(0x01, b'{"type":'), masked(Opcode.CLOSE, NORMAL), frame(0x80, b'"ping"}'))
        ending = await wire.ending()
        assert ending.code in (1000, 1002), "the library calls the half message an error"
        assert ending.before == []


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * 125], ids=["none", "bytes", "the longest"])
async def test_a_pong_repeats_its_ping(relay: Relay, payload: bytes) -> None:
    """§5.5.3: the pong has the ping's application data. Pings are answered in their order."""
    async with dial(relay) as wire:
        await joined(wire)
        wire.send(masked(Opcode.PING, payload), masked(Opcode.PING, b"next"))
        assert await wire.frame() == (Opcode.PONG, payload)
        assert await wire.frame() == (Opcode.PONG, b"next")


@pytest.mark.parametrize("key", [NO_MASK, b"\xff\xff\xff\xff", b"{\x00\x7f}"])
async def test_every_masking_key_is_accepted(relay: Relay, key: bytes) -> None:
    """§5.3: any 32 bits, a new key for each frame, over fragments that do not end where the key does."""
    async with dial(relay) as wire:
        await joined(wire)
        other = key[::-1]
        wire.send(
            frame(0x01, PING[:5], key=key), frame(0x00, PING[5:6], key=other), frame(0x80, PING[6:], key=key)
        )
        assert (await wire.message("pong"))["id"] == 7


@pytest.mark.parametrize("length", [b"\x7e" + struct.pack("!H", 22), b"\x7f" + struct.pack("!Q", 22)])
async def test_a_length_in_a_longer_form_is_accepted(relay: Relay, length: bytes) -> None:
    """§5.2 requires the shortest form from senders. A longer form has one meaning only, and is read."""
    async with dial(relay) as wire:
        await joined(wire)
        wire.send(frame(0x81, PING, length=length), text(type="ping", id=8))
        assert [(await wire.message("pong"))["id"] for _ in range(2)] == [7, 8]


async def test_an_empty_fragment_is_a_fragment(relay: Relay) -> None:
    """§5.4: fragments of no length may stand anywhere in a message, and pings between all of them."""
    async with dial(relay) as wire:
        await joined(wire)
        wire.send(frame(0x01), frame(0x00), masked(Opcode.PING, b"1"), frame(0x00, PING))
        wire.send(masked(Opcode.PING, b"2"), frame(0x80))
        assert [await wire.frame(), await wire.frame()] == [(Opcode.PONG, b"1"), (Opcode.PONG, b"2")]
        assert (await wire.message("pong"))["id"] == 7


def header(size: int) -> bytes:
    """Return how an unmasked text frame of this size begins, with its length in the fewest bytes (§5.2)."""
    if size < 126:
        return bytes([0x81, size])
    return b"\x81\x7e" + struct.pack("!H", size) if size < 1 << 16 else b"\x81\x7f" + struct.pack("!Q", size)


async def test_what_the_relay_sends_has_the_shortest_length(relay: Relay) -> None:
    """§5.1 and §5.2: unmasked, whole, no reserved bit, and lengths of 7, 16 and 64 bits each from where they begin."""
    channel = "prices.l"
    async with dial(relay, query=f"&channels={channel}") as wire:
        assert await wire.shake() == 101
        await wire.message("subscribed")
        await relay.publish(channel, 0)
        await wire.message("snapshot")
        await relay.publish(channel, 0)
        overhead = len((await wire.frame())[1]) - 1
        for size in (125, 126, 127, 65_535, 65_536):
            data = b'"%s"' % (b"x" * (size - overhead - 2))
            body = b'{"channel":"%s","data":%s}' % (channel.encode(), data)
            answer = await relay.publish_raw(body, key=PUBLISHER_KEY)
            assert answer.status_code == 200, answer.text
            head = header(size)
            async with asyncio.timeout(PATIENCE_S):
                got = await wire.reader.readexactly(2)
                while got == b"\x89\x00":  # a ping of the heartbeat's, on a slow machine
                    got = await wire.reader.readexactly(2)
                got += await wire.reader.readexactly(len(head) - 2)
                assert (got, len(await wire.reader.readexactly(size))) == (head, size)
