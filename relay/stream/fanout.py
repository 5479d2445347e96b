"""Runs the hub on the event loop: flushes by turn, frames by the library, one beat for everybody."""

import asyncio
import time
from collections.abc import Callable

from websockets.frames import Frame, Opcode

from relay.core.feeds import FeedOptions
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
        self, options: Callable[[str], FeedOptions], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.hub = Hub(encode=encode, wake=self._wake, wake_lane=self._wake_lane, options=options)
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._scheduled = False
        self._woken_at = 0.0

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._woken_at = self._clock()
            self._loop.call_soon(self._turn)

    def _wake_lane(self, interval_ms: int) -> None:
        # all beats of a lane lie on one grid: what comes between two of them shares the next, whoever began it
        period = interval_ms / 1000
        self._loop.call_later(period - self._loop.time() % period, self.hub.beat_lane, interval_ms)

    def _turn(self) -> None:
        self._scheduled = False
        # half of the loop's time is for prices, if there is so much to write and so much else to do
        waited = self._clock() - self._woken_at
        slices = min(MAX_SLICES, max(1, round(waited / SLICE_S)))
        more = True
        try:
            more = self.hub.flush(WRITES_A_SLICE * slices)
        finally:
            # if one connection's write ever fails, the loop logs it and the others go on: the hub wakes nobody
            # while a flush is under way, so to stop here would be to stop for good
            if more:
                self._wake()
