"""Runs the hub on the event loop: flushes by turn, frames by the library, one beat for everybody."""

import asyncio
import time
from collections.abc import Callable

from websockets.frames import Frame, Opcode

from relay.core.channels import ChannelOptions
from relay.core.counters import Times
from relay.core.hub import Hub

WRITES_A_SLICE = 250
"""Writes in one turn of the loop: about 2 ms at 7.5 µs each, the longest that a handshake should have to wait."""
SLICE_S = 0.002
MAX_SLICES = 4
"""As many at once, if the loop kept prices waiting for as long: a tick to 1000 readers then waits for one such turn
and not for four. More would keep publishers waiting: with 10, recorded bursts came a quarter later than with 3."""


def encode(message: bytes) -> bytes:
    """Return `message` as one unmasked, unfragmented text frame (RFC 6455 §5.2)."""
    return Frame(Opcode.TEXT, message).serialize(mask=False, extensions=[])


class Fanout:
    """The hub of this node, and the turns of the loop in which it writes."""

    def __init__(
        self, options: Callable[[str], ChannelOptions], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.hub = Hub(wake=self._wake, wake_interval=self._wake_interval, options=options)
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._scheduled = False
        self._woken_at = 0.0
        self._under_way = False
        self._taken_at = 0.0  # when the flush under way began; 0: the one before left nothing behind
        self._came_at = 0.0  # when the oldest of it may have come
        self.turns = Times()
        """How long each turn of writing held the loop."""
        self.flushes = Times()
        """From the moment at which the oldest value of a flush may have come, until the last write of it."""

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._woken_at = self._clock()
            self._loop.call_soon(self._turn)

    def _wake_interval(self, interval_ms: int) -> None:
        # The flushes of an interval lie on one time grid, so that all its groups share them.
        period = interval_ms / 1000
        self._loop.call_later(period - self._loop.time() % period, self.hub.flush_interval, interval_ms)

    def _turn(self) -> None:
        self._scheduled = False
        # half of the loop's time is for prices, if there is so much to write and so much else to do
        began = self._clock()
        waited = began - self._woken_at
        if not self._under_way:
            # what comes while one flush is written wakes nobody: it may be as old as that flush
            self._came_at = self._taken_at or self._woken_at
            self._taken_at, self._under_way = began, True
        slices = min(MAX_SLICES, max(1, round(waited / SLICE_S)))
        more = True
        try:
            more = self.hub.flush(WRITES_A_SLICE * slices)
        finally:
            ended = self._clock()
            # if one connection's write ever fails, the loop logs it and the others go on: the hub wakes nobody
            # while a flush is under way, so to stop here would be to stop for good
            if more:
                self._wake()
            self.turns.add(ended - began)
            if not self.hub.flushing:
                self.flushes.add(ended - self._came_at)
                self._under_way = False
                if not more:
                    self._taken_at = 0.0
