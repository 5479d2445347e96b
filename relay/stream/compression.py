"""Shared compression: what a flush has for a set of channels is compressed once, as one message for all its readers.

A connection that has asked for it gets `{"type":"batch","frames":[…]}`, spliced of the frames that other connections
get one by one. Over a WebSocket it is a message of permessage-deflate without context takeover (RFC 7692), over an
event stream some blocks of the answer's gzip stream. Nothing that belongs to one connection is compressed: welcome,
acknowledgements, errors, snapshots and replays go as they are, in an event stream as stored blocks (RFC 1951 §3.2.4).

No message is compressed with the memory of another one: each ends with Z_FULL_FLUSH, after which nothing refers to what
came before. So the same bytes fit every reader, and the length of a message tells nothing about another message.
"""

import time
import zlib
from collections.abc import Callable, Sequence

from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionParameter

from relay.core import messages
from relay.core.counters import CompressionCounters
from relay.core.token_bucket import TokenBucket

LEVEL = 6
"""On a recorded market with 20 symbols: 0.21 of the plain bytes for 72 µs. Level 1: 0.25 for 40 µs. Level 9: 0.20 for
80 µs."""
WINDOW_BITS = 15
MAX_BATCH_BYTES = 262_144
"""Bytes of frames that become one message. More go as they are: it would hold the event loop for longer than 5 ms, and
a client reads no message above 1 MiB."""
SHARED_CPU = 0.5
"""Share of a core for what several connections share. With a thousand pairs of connections it would be all of it."""
TAIL = b"\x00\x00\xff\xff"
"""End of a flush, which a message of permessage-deflate leaves out (RFC 7692 §7.2.1)."""

COMPRESSED_TEXT = bytes([0b1100_0000 | Opcode.TEXT])
"""First byte of the frame of a compressed message: FIN and RSV1 (RFC 7692 §6). The library refuses to set RSV1."""

GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Begins a gzip stream (RFC 1952 §2.3). Its end, with a checksum, never comes: an event stream has no end."""
MAX_STORED = 65_535
"""Bytes of a stored block."""


class FullWindowDeflate(ServerPerMessageDeflateFactory):
    """Negotiates permessage-deflate such that one message fits every client (RFC 7692 §7.1)."""

    def __init__(self) -> None:
        super().__init__(server_no_context_takeover=True, client_no_context_takeover=True)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """See `ServerExtensionFactory`. A client with a smaller window could not read what the others can."""
        response, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits < WINDOW_BITS:
            raise NegotiationError("server_max_window_bits is below 15")
        return response, extension


class Compressor:
    """Compresses the batches of one node.

    `cpu` is the share of a core for batches with one reader. Beyond it they are not compressed. `clock` and `cpu_clock`
    return seconds: of time, and of this thread's CPU.
    """

    def __init__(
        self,
        *,
        cpu: float,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.counters = CompressionCounters()
        self._clock, self._cpu_clock = clock, cpu_clock
        self._deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS)
        self._shared = self._budget(SHARED_CPU)
        self._alone: TokenBucket | None = None
        self.update(cpu=cpu)

    def update(self, *, cpu: float) -> None:
        """Use another share of a core from now on."""
        self._alone = self._budget(cpu) if cpu else None

    def websocket_batch(self, frames: bytes, readers: int) -> bytes | None:
        """See `relay.core.subscribers.Pack`."""
        return self._pack(frames, readers, _websocket_messages, self._websocket_message)

    def event_batch(self, frames: bytes, readers: int) -> bytes | None:
        """See `relay.core.subscribers.Pack`. The frames are stored blocks."""
        return self._pack(frames, readers, _event_messages, self._event)

    def _websocket_message(self, text: bytes) -> bytes:
        payload = self._deflate(text).removesuffix(TAIL)
        return COMPRESSED_TEXT + Frame(Opcode.TEXT, payload).serialize(mask=False, extensions=[])[1:]

    def _event(self, text: bytes) -> bytes:
        return self._deflate(b"data: %b\n\n" % text)

    def _pack(
        self,
        frames: bytes,
        readers: int,
        messages_of: Callable[[bytes], list[bytes]],
        encode: Callable[[bytes], bytes],
    ) -> bytes | None:
        if len(frames) > MAX_BATCH_BYTES:
            return None
        budget = self._alone if readers == 1 else self._shared
        now = self._clock()
        if budget is None or budget.wait(now, 0):
            self.counters.plain += 1
            return None
        began = self._cpu_clock()
        found = messages_of(frames)
        packed = encode(messages.batch(found)) if found else frames
        used = self._cpu_clock() - began
        budget.charge(now, used)
        self.counters.cpu_s += used
        if len(packed) >= len(frames):
            return None
        self.counters.batches += 1
        self.counters.saved_bytes += (len(frames) - len(packed)) * readers
        return packed

    def _deflate(self, data: bytes) -> bytes:
        return self._deflater.compress(data) + self._deflater.flush(zlib.Z_FULL_FLUSH)

    def _budget(self, cpu: float) -> TokenBucket:
        # a burst of one second, for subscriptions that are flushed once a second
        return TokenBucket.full(rate=cpu, burst=cpu, now=self._clock())


def _websocket_messages(frames: bytes) -> list[bytes]:
    """Return the messages in frames of `relay.stream.fanout.encode` (RFC 6455 §5.2)."""
    found, at = [], 0
    while at < len(frames):
        size = frames[at + 1]
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(frames[at : at + width], "big")
            at += width
        found.append(frames[at : at + size])
        at += size
    return found


def stored(data: bytes) -> bytes:
    """Return `data` as stored blocks, which are not compressed."""
    blocks = []
    for start in range(0, len(data), MAX_STORED):
        part = data[start : start + MAX_STORED]
        blocks.append(
            b"\0%b%b%b" % (len(part).to_bytes(2, "little"), (~len(part) & 0xFFFF).to_bytes(2, "little"), part)
        )
    return b"".join(blocks)


def _event_messages(frames: bytes) -> list[bytes]:
    """Return the messages in stored events; none if one has an id, which a batch can't have."""
    parts, at = [], 0
    while at < len(frames):
        size = int.from_bytes(frames[at + 1 : at + 3], "little")
        parts.append(frames[at + 5 : at + 5 + size])
        at += 5 + size
    events = b"".join(parts).split(b"\n\n")[:-1]
    return [event[6:] for event in events] if all(event.startswith(b"data: ") for event in events) else []
