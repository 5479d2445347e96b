"""The hub on the event loop: when it flushes, and where its history comes from.

Publications that come while a flush is written join it if they have few subscribers. The others wait for the next. Each
turn of the loop writes one slice and then lets handshakes, publications and heartbeats run. After a flush in which
values shared writes comes a rest of some milliseconds, so that more of them do.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from websockets.frames import Opcode

from relay.broker.base import Broker, Position
from relay.core.channels import ChannelOptions
from relay.core.counters import DurationHistogram
from relay.core.errors import UnavailableError
from relay.core.hub import Hub
from relay.core.protocol import HistoryRequest
from relay.core.publications import Publication
from relay.stream.hub_clock import steady_ms

WRITES_PER_SLICE = 250
"""Writes of one slice: about 2 ms at 7.5 µs each. A handshake should not have to wait longer."""
SLICE_S = 0.002
MAX_SLICES = 4
"""Slices in one turn, if the loop kept prices waiting for as long. A tick to 1000 subscribers then waits for one such
turn and not for four. More would keep publishers waiting: with 10, recorded bursts came a quarter later than with 3."""
MIN_REST_S = 0.001
"""The loop's timers count milliseconds."""
REST_FACTOR = 2
"""How long a rest is, in times of the writes that it spares."""
MAX_PERIOD_S = 0.03
"""After so long from the beginning of a flush there is no rest before the next. While the machine is slow, a rest would
only add to the delay: without this bound, the p99 of mixed subscriptions was a third higher."""

_TEXT = 0b1000_0000 | Opcode.TEXT  # FIN


def encode(message: bytes) -> bytes:
    """Return `message` as one unmasked, unfragmented text frame (RFC 6455 §5.2).

    The library's `Frame` takes four times as long, which would be a tenth of a publication.
    """
    size = len(message)
    if size < 126:
        return b"%c%c%b" % (_TEXT, size, message)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (_TEXT, size.to_bytes(2, "big"), message)
    return b"%c\x7f%b%b" % (_TEXT, size.to_bytes(8, "big"), message)


class Fanout:
    """The hub of this node, connected to the event loop and to the broker."""

    def __init__(
        self, options: Callable[[str], ChannelOptions], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.hub = Hub(
            wake=self._wake,
            wake_interval=self._wake_interval,
            options=options,
            generation=secrets.token_hex(4),
        )
        self._broker: Broker | None = None
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._scheduled = False
        self._woken_at = 0.0
        self._due_at = 0.0  # of the turn that is scheduled
        self._rest_until = 0.0
        self._writing_s = 0.0  # in the turns of the running flush
        self._counted = (0, 0)  # deliveries and writes before it
        self._flushing = False
        self._flush_began_at = 0.0  # of the running flush, or of the last one
        self._came_during = False  # whether publications came while the last flush was written
        self._oldest_at = 0.0  # when the oldest publication of the running flush may have come
        self.turns = DurationHistogram()
        """How long each turn of writing held the loop."""
        self.flushes = DurationHistogram()
        """From the time at which the oldest publication of a flush may have come to the flush's last write."""

    def publish(self, publication: Publication) -> None:
        """See `Receiver.publish`."""
        self.hub.publish(publication, steady_ms())

    def alive(self, channel: str, *, ts: int) -> None:
        """See `Receiver.alive`."""
        self.hub.alive(channel, ts=ts, heard_ms=steady_ms())

    def remove(self, name: str, /) -> None:
        """See `Receiver.remove`."""
        self.hub.remove(name)

    def delivered(self, entry: int, epoch: str, *, log: int = 0) -> None:
        """See `Receiver.delivered`."""
        self.hub.positions.delivered(entry, epoch, log=log)

    async def connect(self, broker: Broker) -> None:
        """Load the last values of a broker into the hub, and receive all later publications from it.

        They are as old as their `ts` says, so those that are too old are stale from the beginning.

        Raises:
            UnavailableError: if the broker can't be reached.
        """
        loaded = await broker.load()
        now_ms, unix_ms = steady_ms(), int(time.time() * 1000)
        for publication in sorted(
            loaded.values, key=lambda one: one.ts
        ):  # as the search for stale ones needs
            self.hub.publish(publication, now_ms - max(0, unix_ms - publication.ts))
        self.hub.mark_stale(now_ms=now_ms)
        broker.attach(self, after=loaded.delivery_position)
        self._broker = broker

    async def load_histories(self, request: HistoryRequest) -> dict[str, Sequence[Publication]]:
        """Return what the broker has for each channel of a request. Channels that it can't complete are left out."""
        found: dict[str, Sequence[Publication]] = {}
        if self._broker is None:
            return found
        for channel, since in request.since.items():
            try:
                after = Position(epoch=since.epoch, seq=since.seq)
                history = await self._broker.history(channel, after=after)
            except UnavailableError:
                break  # the remaining channels begin with a snapshot too, which the hub has
            if history is not None:
                found[channel] = history
        return found

    def _wake(self) -> None:
        if self._scheduled:
            return
        self._scheduled = True
        self._woken_at = self._due_at = self._clock()
        rest_s = self._rest_until - self._woken_at
        if rest_s < MIN_REST_S or self.hub.flushing:
            self._loop.call_soon(self._turn)
        else:
            self._due_at = self._rest_until
            self._loop.call_later(rest_s, self._turn)

    def _wake_interval(self, interval_ms: int) -> None:
        # The flushes of an interval lie on one time grid, so that all its groups share them.
        period = interval_ms / 1000
        self._loop.call_later(period - self._loop.time() % period, self._flush_interval, interval_ms)

    def _flush_interval(self, interval_ms: int) -> None:
        if self.hub.flush_interval(interval_ms):
            self._loop.call_soon(self._flush_interval, interval_ms)

    def _turn(self) -> None:
        self._scheduled = False
        # The more the loop kept publications waiting, the more is written now. If there is much to write and much
        # else to do, half of the loop's time is for prices.
        began = self._clock()
        waited = began - self._due_at
        if not self._flushing:
            # Publications that come while a flush is written wake nobody. They may be as old as that flush.
            self._oldest_at = self._flush_began_at if self._came_during else self._woken_at
            self._flush_began_at, self._flushing = began, True
        slices = min(MAX_SLICES, max(1, round(waited / SLICE_S)))
        more = True
        try:
            more = self.hub.flush(WRITES_PER_SLICE * slices)
        finally:
            ended = self._clock()
            # If the write of one connection ever raises, the loop logs it and the flush continues for the others. The
            # hub does not wake while a flush is unfinished, so without this it would never be flushed again.
            self.turns.add(ended - began)
            self._writing_s += ended - began
            if not self.hub.flushing:
                self.flushes.add(ended - self._oldest_at)
                self._flushing = False
                self._came_during = more
                self._rest(ended)
            if more:
                self._wake()

    def _rest(self, now: float) -> None:
        """Put off the next flush if the one that has ended shows that more values will then share a write.

        The rest is twice as long as the writes that this spared took. Under a load of many channels a write takes 7 µs
        and a value in it 0.5 µs: 5,000 values/s for 40 readers each fill 0.7 of a core this way, and without rests all
        of it. A loop with so much room is soon up to date after a moment in which the machine was slow.
        If each write has one value nothing is gained by waiting, and there is no rest.
        """
        counters, writing_s = self.hub.counters, self._writing_s
        before, self._counted = self._counted, (counters.deliveries, counters.writes)
        deliveries, writes = (after - then for after, then in zip(self._counted, before, strict=True))
        spared = 1 - writes / deliveries if deliveries > writes else 0.0
        self._rest_until = min(now + REST_FACTOR * writing_s * spared, self._flush_began_at + MAX_PERIOD_S)
        self._writing_s = 0.0
