"""Shared compression: who gets it, what is in it, what it may cost, and what a client can do with it."""

import asyncio
import json
import zlib
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from relay.client import Snapshot, Subscribed, Subscriber
from relay.stream.compression import GZIP_HEADER, MAX_BATCH_BYTES, Compressor
from relay.stream.fanout import encode
from relay.stream.handshake import WebSocketHandshake
from relay.stream.sse import encode_stored
from tests.support.raw_websocket import RawWebSocket, deflate, deflated, inflated, masked, text, until
from tests.support.stream_node import ORIGIN, Node

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
ACCEPTED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
PING = b'{"type":"ping","id":1}'

NEGOTIATIONS = {
    "a browser's offer": ("compress=1", "permessage-deflate; client_max_window_bits", ACCEPTED),
    "a plain offer": ("compress=1", "permessage-deflate", ACCEPTED),
    "without context takeover": (
        "compress=1",
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        ACCEPTED,
    ),
    "the client's own window": (
        "compress=1",
        "permessage-deflate; client_max_window_bits=10",
        f"{ACCEPTED}; client_max_window_bits=10",
    ),
    "a whole window of the server": (
        "compress=1",
        "permessage-deflate; server_max_window_bits=15",
        f"{ACCEPTED.replace('; client', '; client', 1)}; server_max_window_bits=15",
    ),
    "a small window of the server": ("compress=1", "permessage-deflate; server_max_window_bits=14", ""),
    "the smallest window": ("compress=1", "permessage-deflate; server_max_window_bits=8", ""),
    "a small window, or none": (
        "compress=1",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ACCEPTED,
    ),
    "two offers": ("compress=1", "permessage-deflate, permessage-deflate", ACCEPTED),
    "an unknown parameter": ("compress=1", "permessage-deflate; fast", ""),
    "a parameter twice": (
        "compress=1",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "",
    ),
    "no number": ("compress=1", "permessage-deflate; server_max_window_bits", ""),
    "a number with a zero": ("compress=1", "permessage-deflate; server_max_window_bits=015", ""),
    "a window of 16": ("compress=1", "permessage-deflate; server_max_window_bits=16", ""),
    "other extensions": ("compress=1", "x-webkit-deflate-frame, permessage-bzip2", ""),
    "no offer": ("compress=1", "", ""),
    "not asked": ("", "permessage-deflate; client_max_window_bits", ""),
    "asked for none": ("compress=0", "permessage-deflate; client_max_window_bits", ""),
}


def negotiate(query: str, *offers: str) -> tuple[int, str]:
    """Return status and negotiated extensions of the answer to a handshake."""
    headers = Headers(
        [
            ("Host", "stream.example.com"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ]
    )
    for offer in offers:
        headers["Sec-WebSocket-Extensions"] = offer
    handshake = WebSocketHandshake(Request(f"/ws/prices?token=x&{query}", headers), ServerProtocol())
    if handshake.check():
        return 400, ""
    assert handshake.response is not None
    return handshake.response.status_code, handshake.response.headers.get("Sec-WebSocket-Extensions", "")


@pytest.mark.parametrize(("query", "offer", "answer"), NEGOTIATIONS.values(), ids=list(NEGOTIATIONS))
def test_the_negotiation(query: str, offer: str, answer: str) -> None:
    """Only who asks in the URL gets the extension, and only in a form in which one message fits all of them."""
    status, negotiated = negotiate(query, *([offer] if offer else []))
    assert status == 101
    assert sorted(negotiated.split("; ")) == sorted(answer.split("; "))


parameters = st.tuples(
    st.sampled_from(
        [
            "server_no_context_takeover",
            "client_no_context_takeover",
            "server_max_window_bits",
            "client_max_window_bits",
            "other",
        ]
    ),
    st.sampled_from(["", "", "=8", "=9", "=10", "=14", "=15", "=16", "=015", '="15"', '="', "=x"]),
).map("".join)
offers = st.lists(
    st.builds(
        lambda name, given: "; ".join([name, *given]),
        st.sampled_from(["permessage-deflate", "permessage-deflate", "x", ""]),
        st.lists(parameters, max_size=4),
    ),
    min_size=1,
    max_size=3,
).map(", ".join)


@given(st.lists(offers, max_size=2))
def test_any_offer_is_answered(given_offers: list[str]) -> None:
    """An offer is accepted without context takeover and with the whole window, or declined, or it is malformed."""
    status, negotiated = negotiate("compress=1", *given_offers)
    assert status in (101, 400)
    if negotiated:
        assert negotiated.count("permessage-deflate") == 1
        _, *parameters = negotiated.split("; ")
        assert {"server_no_context_takeover", "client_no_context_takeover"} <= set(parameters)
        windows = [one for one in parameters if one.startswith("server_max_window_bits")]
        assert windows in ([], ["server_max_window_bits=15"])
    assert negotiate("", *given_offers) == (101, "")


@pytest.mark.parametrize("query", ["&compress=2", "&compress=", "&compress=true", "&compress=1&compress=1"])
async def test_a_malformed_question_is_refused(node: Node, query: str) -> None:
    """The parameter is 0 or 1, and comes once."""
    async with node.dial(query, headers=OFFER) as wire:
        assert await wire.shake() == 400


QUERY = "&channels=prices.A,prices.B&interval_ms=50"


async def joined(wire: RawWebSocket, extensions: str) -> None:
    assert await wire.shake() == 101
    assert wire.extensions == extensions
    await wire.message("subscribed")


async def next_frame(wire: RawWebSocket) -> tuple[bytes, dict[str, Any]]:
    """Return the next data frame, as it was sent and as a message."""
    while True:
        head = await wire.reader.readexactly(2)
        size = head[1]
        if size == 126:
            head += await wire.reader.readexactly(2)
            size = int.from_bytes(head[2:], "big")
        payload = await wire.reader.readexactly(size)
        message = json.loads(inflated(payload) if head[0] & 0x40 else payload)
        if message["type"] != "heartbeat":
            return head + payload, message


async def test_readers_of_a_set_get_one_compressed_message(node: Node) -> None:
    """Who asked gets what a flush has as one message, the same bytes as others of the set; others get frames."""
    async with (
        node.dial(f"{QUERY}&compress=1", headers=OFFER) as first,
        node.dial(f"{QUERY}&compress=1", headers=OFFER) as second,
        node.dial(QUERY, headers=OFFER) as silent,
        node.dial(f"{QUERY}&compress=1") as unable,
    ):
        await joined(first, ACCEPTED)
        await joined(second, ACCEPTED)
        await joined(silent, "")
        await joined(unable, "")
        value = json.dumps({"name": "a" * 60}).encode()
        node.publish("prices.A", value)
        node.publish("prices.B", value)
        sent, message = await next_frame(first)
        assert sent[0] == 0xC1
        assert message["type"] == "batch"
        assert [(one["type"], one["channel"]) for one in message["frames"]] == [
            ("snapshot", "prices.A"),
            ("snapshot", "prices.B"),
        ]
        assert (await next_frame(second))[0] == sent
        for plain in (silent, unable):
            found = [await next_frame(plain) for _ in range(2)]
            assert [frame[0] for frame, _ in found] == [0x81, 0x81]
            assert [one for _, one in found] == message["frames"]
        first.send(text(type="ping", id=1), text(type="subscribe", id=2, channels=["prices.A"]))
        for kind in ("pong", "subscribed"):
            sent, message = await next_frame(first)
            assert (sent[0], message["type"]) == (0x81, kind), "what belongs to one connection goes plain"
        counters = node.stream.compressor.counters
        assert (counters.batches, counters.plain) == (1, 0)
        assert counters.saved_bytes > 0


async def test_the_budget_of_a_reload_is_used_at_once(node: Node) -> None:
    """With no CPU for it, a set with one reader goes plain. Sets with several are compressed all the same."""
    node.stream.compressor.update(cpu=0)
    async with node.dial(f"{QUERY}&compress=1", headers=OFFER) as alone:
        await joined(alone, ACCEPTED)
        node.publish("prices.A", b'"%b"' % (b"a" * 200))
        assert (await next_frame(alone))[1]["type"] == "snapshot"
        async with node.dial(f"{QUERY}&compress=1", headers=OFFER) as other:
            await joined(other, ACCEPTED)
            await other.message("snapshot")
            node.publish("prices.A", b'"%b"' % (b"b" * 200))
            for wire in (alone, other):
                assert (await next_frame(wire))[1]["type"] == "batch"


HEX = deflate(Random(1).randbytes(9000).hex().encode())
"""10 KB, of which each half inflates to 9 KB."""


@pytest.mark.parametrize("interval_ms", [0, 50])
async def test_the_python_client_gets_the_same_values(node: Node, interval_ms: int) -> None:
    """It asks for batches where it has an interval, and hands out what came in them as what comes one by one."""

    async def token() -> str:
        return node.tickets.token()

    data = {"name": "a" * 200}
    url = f"ws://127.0.0.1:{node.port}/ws/prices"
    async with Subscriber(url, token, origin=ORIGIN) as prices:
        await prices.subscribe(["prices.A", "prices.B"], interval_ms=interval_ms)
        found: list[tuple[str, int, Any]] = []
        async with asyncio.timeout(20):
            async for event in prices:
                if isinstance(event, Subscribed):
                    for channel in ("prices.A", "prices.B"):
                        node.publish(channel, json.dumps(data).encode())
                elif isinstance(event, Snapshot):
                    found.append((event.channel, event.seq, event.data))
                    if len(found) == 2:
                        break
    assert found == [("prices.A", 1, data), ("prices.B", 1, data)]
    assert node.stream.compressor.counters.batches == (1 if interval_ms else 0)


@pytest.mark.parametrize(
    ("query", "accepted", "is_compressed"),
    [
        ("&compress=1", "gzip, deflate, br, zstd", True),
        ("&compress=1", "br, GZIP;q=0.5", True),
        ("&compress=1", "gzip;q=0, br", False),
        ("&compress=1", "br", False),
        ("&compress=1", "", False),
        ("", "gzip", False),
    ],
)
async def test_an_event_stream_is_one_gzip_stream(
    node: Node, query: str, accepted: str, is_compressed: bool
) -> None:
    """Who asks and accepts gzip gets a stream in which its own events are stored and batches compressed."""
    fields = (("Accept-Encoding", accepted),) if accepted else ()
    async with node.ask(f"{QUERY}{query}", fields=fields) as stream:
        assert await stream.shake() == 200
        encodings = [value for name, value in stream.answer.fields if name == "content-encoding"]
        assert encodings == (["gzip"] if is_compressed else [])
        inflater, text = zlib.decompressobj(31), ""

        async def until_text(wanted: str) -> bytes:
            nonlocal text
            read = b""
            async with asyncio.timeout(20):
                while wanted not in text or not text.endswith("\n\n"):
                    data = await stream.reader.read(1 << 16)
                    read += data
                    text += (inflater.decompress(data) if is_compressed else data).decode()
            return read

        assert b'"type":"subscribed"' in await until_text('"type":"subscribed"'), "its own events are stored"
        value = json.dumps({"name": "a" * 70_000}).encode()  # longer than a stored block
        for channel in ("prices.A", "prices.B"):
            node.publish(channel, value)
        sent = await until_text('"channel":"prices.B","epoch"')
        messages = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        if is_compressed:
            assert len(sent) < 4000
            assert [one["channel"] for one in messages[-1]["frames"]] == ["prices.A", "prices.B"]
        else:
            assert messages[-1]["channel"] == "prices.B"
        stream.writer.write_eof()


@given(st.lists(st.text(max_size=100).map(lambda text: json.dumps({"x": text}).encode()), min_size=1))
def test_an_event_batch_has_the_messages_of_its_events(texts: list[bytes]) -> None:
    """It stands in any gzip stream, and what has an id stays as it is."""
    compressor = Compressor(cpu=1)
    frames = b"".join(map(encode_stored, texts))
    sent = compressor.event_batch(frames, 2)
    if sent is not None:
        begin = GZIP_HEADER + encode_stored(b'{"type":"pong"}')
        events = zlib.decompressobj(31).decompress(begin + sent).split(b"\n\n")
        assert json.loads(events[1][6:]) == {"type": "batch", "frames": [*map(json.loads, texts)]}
    with_id = b"".join(encode_stored.with_id(b"a-2", encode_stored(text)) for text in texts)
    assert compressor.event_batch(with_id, 2) is None


FRAMES = {
    "a ping": (deflated(Opcode.TEXT, deflate(PING)), None),
    "a ping in fragments": (
        deflated(Opcode.TEXT, deflate(PING)[:5], fin=False) + masked(Opcode.CONT, deflate(PING)[5:]),
        None,
    ),
    "a ping that is not compressed": (masked(Opcode.TEXT, PING), None),
    "a ping that ends in an empty fragment": (
        deflated(Opcode.TEXT, deflate(PING), fin=False) + masked(Opcode.CONT, b""),
        None,
    ),
    "as long as a frame may be": (deflated(Opcode.TEXT, deflate(PING + b" " * (16384 - len(PING)))), None),
    "one byte too long": (deflated(Opcode.TEXT, deflate(PING + b" " * (16385 - len(PING)))), 1009),
    "a bomb of 16 MB": (deflated(Opcode.TEXT, deflate(bytes(1 << 24))), 1009),
    "a bomb of 4 MB": (deflated(Opcode.TEXT, deflate(bytes(1 << 22))), 1009),
    "a bomb in fragments": (
        deflated(Opcode.TEXT, deflate(bytes(1 << 22))[:2000], fin=False)
        + masked(Opcode.CONT, deflate(bytes(1 << 22))[2000:]),
        1009,
    ),
    "too long in fragments that are not": (
        deflated(Opcode.TEXT, HEX[: len(HEX) // 2], fin=False) + masked(Opcode.CONT, HEX[len(HEX) // 2 :]),
        1009,
    ),
    "no deflate at all": (deflated(Opcode.TEXT, b"\xff" * 40), 1002),
    "a stream that ends": (deflated(Opcode.TEXT, zlib.compress(PING)), 1002),
    "the bit in a continuation": (
        masked(Opcode.TEXT, b"{", fin=False) + deflated(Opcode.CONT, deflate(b"}")),
        1002,
    ),
    "the bit in a ping of the layer": (deflated(Opcode.PING, b""), 1002),
    "the bit in a close": (deflated(Opcode.CLOSE, b"\x03\xe8"), 1002),
    "the second reserved bit": (bytes([0b1110_0001]) + deflated(Opcode.TEXT, deflate(PING))[1:], 1002),
    "no utf-8": (deflated(Opcode.TEXT, deflate(b"\xff\xfe")), 1007),
    "a compressed binary": (deflated(Opcode.BINARY, deflate(PING)), 1003),
}


@pytest.mark.parametrize(("frames", "code"), FRAMES.values(), ids=list(FRAMES))
async def test_frames_of_a_client(node: Node, frames: bytes, code: int | None) -> None:
    """A compressed frame counts as what it inflates to, and what is not allowed ends the connection."""
    async with node.dial("&channels=prices.A&compress=1", headers=OFFER) as wire:
        await joined(wire, ACCEPTED)
        wire.send(frames)
        if code is None:
            assert (await wire.message())["type"] == "pong"
        else:
            assert (await wire.ending()).code == code


async def test_a_compressed_frame_needs_the_negotiation(node: Node) -> None:
    """Without it the bit breaks the protocol, before and after the client is known."""
    for query, headers in (("&channels=prices.A", OFFER), ("&channels=prices.A&compress=1", "")):
        async with node.dial(query, headers=headers) as wire:
            await joined(wire, "")
            wire.send(deflated(Opcode.TEXT, deflate(PING)))
            assert (await wire.ending()).code == 1002


async def test_a_connection_leaves_nothing(node: Node) -> None:
    """A client that goes in the middle of a compressed message is forgotten as any other."""
    async with node.dial(f"{QUERY}&compress=1", headers=OFFER) as wire:
        await joined(wire, ACCEPTED)
        wire.send(deflated(Opcode.TEXT, deflate(PING)[:4], fin=False))
    await node.empty()
    await until(lambda: not node.fanout.hub._packing)


class Clocks:
    """The time and the CPU of a compressor: each message takes `cost_s`."""

    def __init__(self, cost_s: float) -> None:
        self.now = self.used = 0.0
        self.cost_s = cost_s

    def cpu(self) -> float:
        self.used += self.cost_s
        return self.used

    def compressor(self, cpu: float) -> Compressor:
        return Compressor(cpu=cpu, clock=lambda: self.now, cpu_clock=self.cpu)


SET = b"".join(
    encode(b'{"type":"update","channel":"prices.%d","seq":7,"data":{"bid":"1.0"}}' % n) for n in range(9)
)


def packed(compressor: Compressor, readers: int, batches: int) -> int:
    """Return how many of so many batches are compressed."""
    return sum(compressor.websocket_batch(SET, readers) is not None for _ in range(batches))


def test_sets_with_one_reader_have_a_budget() -> None:
    """After a burst of one second's share they get that share of each second, and plain frames beyond it."""
    clocks = Clocks(1 / 64)
    compressor = clocks.compressor(1 / 8)
    assert packed(compressor, 1, 50) == 8 + 1
    clocks.now += 2
    assert packed(compressor, 1, 50) == 8 + 1
    clocks.now += 0.25
    assert packed(compressor, 1, 50) == 2
    assert packed(compressor, 2, 20) == 20, "what is shared has a budget of its own"
    assert compressor.counters.plain == 41 + 41 + 48


def test_shared_sets_take_half_a_core_at_most() -> None:
    """A thousand pairs of connections with a set each leave the rest of the core to everything else."""
    clocks = Clocks(1 / 64)
    compressor = clocks.compressor(0)
    assert packed(compressor, 2, 500) == 32 + 1
    clocks.now += 1
    assert packed(compressor, 2, 500) == 32
    assert packed(compressor, 1, 5) == 0


messages = st.lists(st.text(max_size=400).map(lambda text: json.dumps({"x": text}).encode()), min_size=1)


@given(st.lists(messages, min_size=1, max_size=4))
def test_a_batch_has_the_messages_of_its_frames(batches: list[list[bytes]]) -> None:
    """Each can be read without the ones before it, has what the frames have, and no byte depends on another batch."""
    compressor = Compressor(cpu=1)
    for texts in batches:
        frames = b"".join(map(encode, texts))
        sent = compressor.websocket_batch(frames, 2)
        if sent is None:  # it would not be shorter
            continue
        assert len(sent) < len(frames)
        assert sent[0] == 0xC1
        start = {126: 4, 127: 10}.get(sent[1], 2)
        assert json.loads(inflated(sent[start:])) == {"type": "batch", "frames": [*map(json.loads, texts)]}
        assert sent == Compressor(cpu=1).websocket_batch(frames, 2)


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 100_000])
def test_frames_of_each_length(size: int) -> None:
    """RFC 6455 §5.2 has three forms of a length."""
    text = b'{"x":"%b"}' % (b"a" * (size - 8))
    sent = Compressor(cpu=1).websocket_batch(encode(text) * 2, 2)
    assert sent is not None
    start = {126: 4, 127: 10}.get(sent[1], 2)
    assert inflated(sent[start:]) == b'{"type":"batch","frames":[%b,%b]}' % (text, text)


def test_a_huge_set_goes_plain() -> None:
    """Compressing it would hold the event loop, and a client reads no message of any size."""
    frame = encode(b'{"x":"%b"}' % (b"a" * 60_000))
    compressor = Compressor(cpu=1)
    assert compressor.websocket_batch(frame * (MAX_BATCH_BYTES // len(frame)), 2) is not None
    assert compressor.websocket_batch(frame * (MAX_BATCH_BYTES // len(frame) + 1), 2) is None
