"""The yardstick: what a Python program gets without a relay, from `websockets.broadcast()` on uvloop.

`python -m relay.bench.load.yardstick` accepts every connection and makes its ticks itself: it has no publisher to
answer, no token to check, and nothing to do for late subscribers. A client that names channels in the URL gets those
and an acknowledgement; a client that names none gets nothing.

    in   {"ticks": {…}, "interval_ms": 0, "waits": true}
    out  {"port": p}
    …    and then as `relay.bench.load.publisher`
"""

import asyncio
import contextlib
import time
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.frames import Frame, Opcode

from relay.bench.load.orders import Published, carry_out, read_order, say, wait_for_end
from relay.bench.load.ticks import Tick, Ticks

BACKLOG = 4096
LOOK_EVERY = 16
MAX_PENDING_BYTES = 1 << 20
"""`broadcast` waits for no client. Every 16 ticks the yardstick waits while a socket has 1 MiB to send: 1000 of them
fill a GB."""
SUBSCRIBED = '{"type":"subscribed","channels":[],"rejected":[]}'


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to play. Without `waits` a socket that takes nothing fills the memory. `values_a_write`: see `BareLoop`."""

    ticks: Ticks
    interval_ms: int = 0
    waits: bool = True
    values_a_write: float = 0.0


class Yardstick:
    """All connections, by channel."""

    def __init__(self, order: Order) -> None:
        self._ticks = order.ticks
        self._interval_s = order.interval_ms / 1000
        self._waits = order.waits
        self.subscribers: dict[str, set[ServerConnection]] = {name: set() for name in order.ticks.channels}
        self._newest: dict[int, bytes] = {}
        self._seq = 0
        self.counts = [0] * len(order.ticks.channels)

    async def serve(self, connection: ServerConnection) -> None:
        """Hold one connection."""
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        names = [name for text in query.get("channels", []) for name in text.split(",")]
        for name in names:
            self.subscribers[name].add(connection)
        if names:
            await connection.send(SUBSCRIBED)
        try:
            await connection.wait_closed()
        finally:
            for name in names:
                self.subscribers[name].discard(connection)

    async def play(self, server: Server) -> None:
        """Send all ticks at their pace, until cancelled."""
        started, progress = time.monotonic(), Published()
        with contextlib.ExitStack() as stack:
            if self._interval_s:
                stack.callback(asyncio.create_task(self._flush_at_intervals()).cancel)
            for number, tick in enumerate(self._ticks.due(), start=1):
                # due times are counted from the start, so that the pace does not drift
                await self._wait(started + tick.due_s)
                self.send(tick)
                if number % LOOK_EVERY == 0 and self._waits:
                    while _most_pending(server) > MAX_PENDING_BYTES:  # noqa: ASYNC110  # no event says when it falls
                        await asyncio.sleep(0.001)
                progress.tell(number)

    async def _wait(self, due: float) -> None:
        """Let others run, at least until `due`."""
        await asyncio.sleep(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        """Send what waits for the next interval, and the end mark of every channel."""
        self._flush()
        for place in range(len(self._ticks.channels)):
            self._seq += 1
            message = self._ticks.message(place, self._ticks.end_value(place, self.counts[place]), self._seq)
            self._to(place, message)
        self._flush()

    def send(self, tick: Tick) -> None:
        """Send one tick, or keep it for the next interval."""
        self._seq += 1
        message = self._ticks.message(tick.channel, self._ticks.value(tick), self._seq)
        self.counts[tick.channel] += 1
        if self._interval_s and tick.channel not in self._ticks.streams:
            self._newest[tick.channel] = message
        else:
            self._to(tick.channel, message)

    async def _flush_at_intervals(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self._flush()

    def _flush(self) -> None:
        newest, self._newest = self._newest, {}
        for channel, message in newest.items():
            self._to(channel, message)

    def _to(self, channel: int, message: bytes) -> None:
        """Send a message to the subscribers of the channel at this place."""
        broadcast(self.subscribers[self._ticks.channels[channel]], message, text=True)


class BareLoop(Yardstick):
    """The least that Python needs: one write of all that is due, when connections have `values_a_write` on average."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._due: dict[ServerConnection, list[bytes]] = {}
        self._values, self._enough = 0, order.values_a_write
        if self._enough < 1.5:  # most writes had one value, which should not wait for a second
            self._enough = 1.0

    async def _wait(self, due: float) -> None:
        if is_enough := self._values > 0 and self._values >= self._enough * len(self._due):
            self._write()
        if is_enough or due > time.monotonic():
            await super()._wait(due)

    def _to(self, channel: int, message: bytes) -> None:
        frame = Frame(Opcode.TEXT, message).serialize(mask=False)
        subscribers = self.subscribers[self._ticks.channels[channel]]
        self._values += len(subscribers)
        for connection in subscribers:
            self._due.setdefault(connection, []).append(frame)

    def _flush(self) -> None:
        super()._flush()
        self._write()

    def _write(self) -> None:
        due, self._due, self._values = self._due, {}, 0
        for connection, frames in due.items():
            connection.transport.write(b"".join(frames))


async def run(order: Order, make: type[Yardstick] | None = None) -> None:
    """Serve until standard input ends. Orders are read in a thread, which waits for most of the time."""
    yardstick = (make or (BareLoop if order.values_a_write else Yardstick))(order)
    async with serve(
        yardstick.serve,
        "127.0.0.1",
        0,
        compression=None,
        ping_interval=None,
        backlog=BACKLOG,
        close_timeout=0,
    ) as server:
        say(port=next(iter(server.sockets)).getsockname()[1])
        await asyncio.to_thread(read_order)  # go
        started = time.monotonic()
        playing = asyncio.create_task(yardstick.play(server))
        stop = asyncio.create_task(asyncio.to_thread(read_order))
        await asyncio.wait((playing, stop), return_when=asyncio.FIRST_COMPLETED)
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        say(published=sum(yardstick.counts), seconds=time.monotonic() - started)
        yardstick.end()
        say(finished=True)
        await stop
        await asyncio.to_thread(wait_for_end)


def _most_pending(server: Server) -> int:
    return max((link.transport.get_write_buffer_size() for link in server.connections), default=0)


if __name__ == "__main__":
    carry_out(Order, run)
