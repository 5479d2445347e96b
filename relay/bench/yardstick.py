"""The yardstick: what a Python program gets without a relay, from `websockets.broadcast()` on uvloop.

`python -m relay.bench.yardstick` accepts everybody and makes its ticks itself, in its own process: it has no
publisher to answer, no token to check, no slow reader to spare. Compression is off, as in the relay; with it
the comparison would be about zlib.

    in   {"rate": r, "ticks": n, "run": …, "channel": …}
    out  {"port": p}
    in   {"go": true}         out  {"published": n, "seconds": s}     after the last tick
    in   {"finish": true}     sends the end mark
"""

import asyncio
import json
import sys
import time

import uvloop
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve

from relay.bench.ticks import Ticks

BACKLOG = 4096
LOOK_EVERY = 16
MAX_PENDING_BYTES = 1 << 20
"""`broadcast` waits for nobody. Every 16 ticks we do, once a socket has 1 MiB waiting: 1000 of them fill a GB."""


async def run() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    order = json.loads(await orders.readline())
    ticks = Ticks(run=order["run"], channel=order["channel"])
    async with serve(
        _hold, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=BACKLOG, close_timeout=0
    ) as server:
        _say(port=next(iter(server.sockets)).getsockname()[1])
        if await orders.readline():
            started = time.monotonic()
            await _publish(server, ticks, rate=order["rate"], count=order["ticks"])
            _say(published=order["ticks"], seconds=time.monotonic() - started)
        if await orders.readline():
            broadcast(server.connections, ticks.end_message(order["ticks"] + 1), text=True)
            await orders.read()


async def _hold(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def _publish(server: Server, ticks: Ticks, *, rate: float, count: int) -> None:
    started = time.monotonic()
    for number in range(count):
        # due times are counted from the start, so that the pace does not drift
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()) if rate else 0)
        broadcast(server.connections, ticks.message(number + 1), text=True)
        if number % LOOK_EVERY == 0:
            while _most_pending(server) > MAX_PENDING_BYTES:  # noqa: ASYNC110  # nothing tells when it falls
                await asyncio.sleep(0.001)


def _most_pending(server: Server) -> int:
    return max((link.transport.get_write_buffer_size() for link in server.connections), default=0)


def _say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(run())
