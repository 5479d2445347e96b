"""Ends connections whose client takes hardly any bytes. Otherwise they would keep their memory without end."""

import asyncio
import contextlib
import socket
import struct
from typing import Final

CHECK_EVERY_S: Final = 5.0
STALLED_CHECKS: Final = 6
"""Checks in a row within which the client took less than `TAKEN_BYTES`: 30 s. That is longer than any radio gap after
which TCP goes on."""
TAKEN_BYTES: Final = 32_768
"""Bytes that count as progress: 1 KB/s. A client that takes a byte from time to time is no slow line but an attack.

The acknowledged bytes are counted. The buffer's size says nothing: while one answer is taken, the next one is written.
"""
STOPPED_WITHIN_S: Final = 1.3
"""Seconds in which a client takes its last bytes when the relay stops. Without this bound, one that takes nothing held
the process for 30 s, and systemd kills after 20."""
_BYTES_ACKED: Final = struct.Struct("120xQ")
"""`tcpi_bytes_acked` in the kernel's `tcp_info`."""


class WriteStalls:
    """Watches one transport while bytes wait in it. `watch` is cheap: call it after each larger write."""

    check_every_s = CHECK_EVERY_S

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0
        self._stalled = 0

    def watch(self) -> None:
        """Look after the bytes that wait now, until they are gone."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self._taken, self._stalled = self._bytes_taken(), 0
            self._timer = self._loop.call_later(self.check_every_s, self._check)

    def stop(self) -> None:
        """Stop watching: the connection has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if not self._transport.get_write_buffer_size():
            return
        taken = self._bytes_taken()
        if taken - self._taken >= TAKEN_BYTES:
            self._taken, self._stalled = taken, 0
        else:
            self._stalled += 1
        if self._stalled >= STALLED_CHECKS:
            self._reset()
        else:
            self._timer = self._loop.call_later(self.check_every_s, self._check)

    def _bytes_taken(self) -> int:
        """Return how many bytes the client has acknowledged since it connected."""
        info = self._transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size
        )
        return int(_BYTES_ACKED.unpack(info)[0])

    def _reset(self) -> None:
        """Cut the connection off. Without SO_LINGER the kernel would go on offering what it holds, up to 2 MB."""
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._transport.abort()
