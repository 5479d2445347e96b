"""One timer for all connections: heartbeats, pings, dead peers, stalled readers, connections at their age limit.

A task a connection would be thousands of timers for the same work, and the library's own ping timeout does not
fire while its `drain()` waits, which is when it would be needed.
"""

import time

import anyio
import anyio.lowlevel
from websockets.protocol import OPEN

from relay.core.closes import close_for
from relay.core.errors import Reason
from relay.core.hub import Hub
from relay.core.liveness import BEATS_PER_HEARTBEAT
from relay.core.messages import HEARTBEAT_MS
from relay.stream.connection import StreamConnection
from relay.stream.registry import Registry

SWEEP_S = 0.25
"""How often silent channels are looked for: a price is called stale a quarter of a second late at most."""
SWEEPS_A_BEAT = round(HEARTBEAT_MS / 1000 / BEATS_PER_HEARTBEAT / SWEEP_S)
PING_EVERY_BEATS = 16
"""A ping each 20 s: below the 30 to 60 s after which proxies and NAT forget a quiet connection."""
SILENT_ROUNDS = 3
"""Rounds of pings in which nothing at all was heard: 40 s after the first that went unanswered."""
STALLED_BEATS = 24
"""Looks at which the kernel had taken no byte since the last one: 29 to 30 s, longer than any radio gap after which
TCP goes on."""

_PING = b"\x89\x00"


async def run_heartbeat(hub: Hub, registry: Registry) -> None:
    """Beat until cancelled."""
    sweeps = beats = 0
    while True:
        await anyio.sleep(SWEEP_S)
        now = time.time()
        hub.mark_stale(now_ms=int(now * 1000))
        sweeps += 1
        if sweeps % SWEEPS_A_BEAT:
            continue
        beats += 1
        for _ in hub.beat(now_ms=int(now * 1000)):
            await anyio.lowlevel.checkpoint()  # let the prices through
        ping = beats % PING_EVERY_BEATS == 0
        for index, connection in enumerate(list(registry.connections)):
            _look_after(connection, now, ping=ping)
            if index % 500 == 499:  # likewise: a millisecond at most
                await anyio.lowlevel.checkpoint()


def _look_after(connection: StreamConnection, now: float, *, ping: bool) -> None:
    if connection.protocol.state is not OPEN:
        return
    if connection.client is not None and connection.client.next_deadline() <= now:
        close = connection.client.tick(now)
        if close is not None:
            connection.end(close)
            return
    pending = connection.pending()
    if not pending or pending < connection.stalled_bytes:
        connection.stalled_beats = 0
    else:
        connection.stalled_beats += 1
        if connection.stalled_beats >= STALLED_BEATS:
            connection.drop(close_for(Reason.READER_STALLED))
            return
    connection.stalled_bytes = pending
    # while bytes wait, only whether they move counts: a slow reader would not get to the ping in time
    if ping and not pending:
        connection.silent_rounds += 1
        if connection.silent_rounds >= SILENT_ROUNDS:
            connection.drop(close_for(Reason.NO_PONG))
        else:
            connection.write(_PING)
