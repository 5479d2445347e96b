"""A WebSocket client on a bare TCP connection, which sends any frames, valid or not."""

import asyncio
import json
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.frames import Frame, Opcode

PATIENCE_S = 10
RSV1 = 0b0100_0000
"""The bit of a compressed message (RFC 7692 §6)."""
_NO_LINGER = struct.pack("ii", 1, 0)


def masked(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """Return one frame as a client has to send it."""
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def deflated(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """Return one frame of a client that says it is compressed. `data` is sent as it is."""
    frame = masked(opcode, data, fin=fin)
    return bytes([frame[0] | RSV1]) + frame[1:]


def deflate(data: bytes) -> bytes:
    """Return the payload of a compressed message (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def inflated(payload: bytes) -> bytes:
    """Return what a message of permessage-deflate without context takeover holds (RFC 7692 §7.2.2)."""
    return zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")


def text(**frame: Any) -> bytes:
    """Return one message of relay.v1 as a masked frame."""
    return masked(Opcode.TEXT, json.dumps(frame).encode())


@dataclass(frozen=True)
class Ending:
    """How the relay ended the connection: its close frame, if it sent one, and the data frames before it."""

    code: int | None
    reason: str
    before: list[dict[str, Any]]


class RawWebSocket:
    """One connection, opened by `open_raw_websocket`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.extensions = ""
        """What was negotiated, as the answer's header says it."""

    def send(self, *frames: bytes) -> None:
        """Send bytes as they are, in one piece."""
        self.writer.write(b"".join(frames))

    async def shake(self) -> int:
        """Read the answer to the handshake and return its status."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = (line.partition(": ") for line in head.split("\r\n"))
        self.extensions = ", ".join(
            value for name, _, value in fields if name.lower() == "sec-websocket-extensions"
        )
        return int(head.split()[1])

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame's opcode and payload, inflated if that was negotiated.

        It must be whole and unmasked, as servers' frames are.
        """
        async with asyncio.timeout(PATIENCE_S):
            first, length = await self.reader.readexactly(2)
            is_deflated = bool(self.extensions) and first & RSV1 != 0
            assert first & 0b1111_0000 == 0b1000_0000 | RSV1 * is_deflated, "fragmented, or reserved bits"
            assert length < 128, "masked"
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(length)
            return first & 0b1111, inflated(payload) if is_deflated else payload

    async def message(self, *types: str) -> dict[str, Any]:
        """Return the next message of one of these types, or of any but `heartbeat`."""
        while True:
            opcode, data = await self.frame()
            if opcode == Opcode.TEXT:
                message: dict[str, Any] = json.loads(data)
                if message["type"] in types if types else message["type"] != "heartbeat":
                    return message

    async def ending(self) -> Ending:
        """Read to the end of the TCP connection. Nothing may come after the close frame."""
        before: list[dict[str, Any]] = []
        code, reason = None, ""
        try:
            while True:
                opcode, data = await self.frame()
                if opcode == Opcode.CLOSE:
                    code, reason = struct.unpack("!H", data[:2])[0], data[2:].decode()
                    async with asyncio.timeout(PATIENCE_S):
                        assert await self.reader.read() == b"", "bytes came after the close frame"
                    break
                if opcode == Opcode.TEXT:
                    before.append(json.loads(data))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        return Ending(code=code, reason=reason, before=before)

    @property
    def port(self) -> int:
        """The client's port, which identifies the connection at the relay."""
        return int(self.writer.get_extra_info("sockname")[1])

    def reset(self) -> None:
        """End the TCP connection with RST, as when the client's process has died."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.writer.transport.abort()


@asynccontextmanager
async def open_raw_websocket(
    port: int,
    target: str,
    *,
    origin: str,
    headers: str = "",
    behind: bytes = b"",
    receive_buffer: int | None = None,
) -> AsyncIterator[RawWebSocket]:
    """Connect and send a handshake for `target` with `behind` in the same segment; reads nothing yet.

    With `receive_buffer`, kernel and client together take little more than so many bytes until they are read.
    """
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 16)
    handshake = (
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: {origin}\r\n"
        f"{headers}\r\n"
    )
    writer.write(handshake.encode() + behind)
    try:
        yield RawWebSocket(reader, writer)
    finally:
        writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that can only be polled, such as another process's memory or a kernel's table."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nobody sets an event there
            await asyncio.sleep(0.01)
