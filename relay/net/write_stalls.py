"""Ends connections whose client takes no bytes. Such a client would keep its connection and its memory without end."""

import asyncio
import contextlib
import socket
import struct
from typing import Final

CHECK_EVERY_S: Final = 5.0
STALLED_CHECKS: Final = 6
"""Checks in a row between which the kernel took no byte: 30 s. That is longer than any radio gap after which TCP goes
on."""


class WriteStalls:
    """Watches one transport while bytes wait in it. `watch` is cheap: call it after each larger write."""

    check_every_s = CHECK_EVERY_S

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._stalled = 0

    def watch(self) -> None:
        """Look after the bytes that wait now, until they are gone."""
        if self._timer is None and (waiting := self._transport.get_write_buffer_size()):
            self._waiting, self._stalled = waiting, 0
            self._timer = self._loop.call_later(self.check_every_s, self._check)

    def stop(self) -> None:
        """Stop watching: the connection has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        self._stalled = self._stalled + 1 if waiting >= self._waiting else 0
        self._waiting = waiting
        if self._stalled >= STALLED_CHECKS:
            self._reset()
        elif waiting:
            self._timer = self._loop.call_later(self.check_every_s, self._check)

    def _reset(self) -> None:
        """Cut the connection off. Without SO_LINGER the kernel would go on offering what it holds, up to 2 MB."""
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._transport.abort()
