"""The heartbeat loop: one timer for all connections.

It marks silent channels, sends heartbeats, and checks each connection: age limit, pings, stalled readers
(`Connection.check`). One task for each connection would be thousands of timers for the same work.
"""

import time

import anyio
import anyio.lowlevel

from relay.core.hub import Hub
from relay.core.liveness import BEATS_PER_HEARTBEAT
from relay.core.messages import HEARTBEAT_MS
from relay.stream.hub_clock import steady_ms
from relay.stream.registry import Registry

SWEEP_S = 0.25
"""Time between two looks for silent channels: a price is called stale a quarter of a second late at most."""
SWEEPS_PER_BEAT = round(HEARTBEAT_MS / 1000 / BEATS_PER_HEARTBEAT / SWEEP_S)
PING_EVERY_BEATS = 16
"""A ping every 20 s. Proxies and NAT forget a quiet connection after 30 to 60 s."""
CHECKS_PER_TURN = 500
"""Connections checked in one turn of the loop: a millisecond at most."""


async def run_heartbeat(hub: Hub, registry: Registry) -> None:
    """Run the loop until it is cancelled."""
    sweeps = beats = 0
    while True:
        await anyio.sleep(SWEEP_S)
        hub.mark_stale(now_ms=steady_ms())
        sweeps += 1
        if sweeps % SWEEPS_PER_BEAT:
            continue
        beats += 1
        for _ in hub.beat(now_ms=int(time.time() * 1000)):
            await anyio.lowlevel.checkpoint()  # prices go first
        now = time.monotonic()
        ping = beats % PING_EVERY_BEATS == 0
        for number, connection in enumerate(list(registry.connections), start=1):
            connection.check(now, ping=ping)
            if number % CHECKS_PER_TURN == 0:
                await anyio.lowlevel.checkpoint()
