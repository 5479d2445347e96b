"""Newcomers, many at once, as a process: `python -m relay.bench.load.connections`.

Tokens and connections take turns, in portions, because a token lives for 30 seconds; so the server's CPU for the
one and the other is known apart. All connections stay open until the end, which they meet with a reset: thousands
of ports in TIME_WAIT would be missing in the next run.

    in   {"target": {…}, "connections": n, "parallel": n, "first": n, "pid": p}
    out  {"connected": n}       after each portion
    out  {"connecting": {…}}    see `Connecting`; the connections close at the end of standard input
"""

import contextlib
import socket
import sys
import time

import msgspec

from relay.audit.jsonl import NOTE_WITHIN_S
from relay.bench.load.http_post import RESET
from relay.bench.load.opener import Opener
from relay.bench.load.orders import Gone, read_line, read_order, say
from relay.bench.load.processes import cpu_of, memory_of
from relay.bench.load.targets import Target
from relay.bench.load.totals import quantile
from relay.core.errors import RelayError

PORTION = 1000
"""Tokens that are taken before they are used: at 100 a second, an eighth of what the issuer does, 10 seconds' worth."""

SETTLE_S = NOTE_WITHIN_S + 0.05
"""What a server still has to do for its newcomers counts as theirs, like the relay's records that wait for others."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Who connects where: `parallel` at a time, from the target's session `first` on, to the process `pid`."""

    target: Target
    connections: int
    parallel: int
    first: int
    pid: int


class Connecting(msgspec.Struct, frozen=True, kw_only=True):
    """What it took. CPU is the server's, in seconds, except `cpu_s`, this process's own in `wall_s`.

    `memory_bytes` is by how much the server's memory grew. Tokens are 0 where none are needed.
    """

    connections: int
    tokens: int
    tokens_s: float
    tokens_cpu_s: float
    connects_s: float
    connects_cpu_s: float
    connect_p50_ms: float | None
    connect_p99_ms: float | None
    memory_bytes: int
    wall_s: float
    cpu_s: float


def main() -> None:
    """Carry out one order."""
    try:
        order = msgspec.json.decode(read_line(), type=Order)
        connections: list[socket.socket] = []
        say(connecting=_connect(order, connections))
        with contextlib.suppress(Gone):
            read_order()  # its end
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
    except RelayError as error:
        say(error=str(error))
    except (Gone, BrokenPipeError):
        sys.exit(0)


def _connect(order: Order, connections: list[socket.socket]) -> Connecting:
    opener = Opener(order.target, threads=order.parallel)
    hand = tuple(range(len(order.target.channels)))
    memory_before, started, own_cpu = memory_of(order.pid), time.monotonic(), time.process_time()
    tokens_s = tokens_cpu_s = connects_s = connects_cpu_s = 0.0
    for start in range(0, order.connections, PORTION):
        hands = [hand] * min(PORTION, order.connections - start)
        at, cpu = time.monotonic(), cpu_of(order.pid)
        tokens = opener.take_all(hands, first=order.first + start)
        taken_at, taken_cpu = time.monotonic(), cpu_of(order.pid)
        connections += opener.open_all(hands, tokens=tokens)
        tokens_s += taken_at - at
        tokens_cpu_s += taken_cpu - cpu
        connects_s += time.monotonic() - taken_at
        time.sleep(SETTLE_S)
        connects_cpu_s += cpu_of(order.pid) - taken_cpu
        say(connected=len(connections))
    times = sorted(opener.seconds)
    return Connecting(
        connections=len(connections),
        tokens=len(connections) if order.target.issuer else 0,
        tokens_s=tokens_s,
        tokens_cpu_s=tokens_cpu_s,
        connects_s=connects_s,
        connects_cpu_s=connects_cpu_s,
        connect_p50_ms=quantile(times, 0.5, unit=1e-3),
        connect_p99_ms=quantile(times, 0.99, unit=1e-3),
        memory_bytes=memory_of(order.pid) - memory_before,
        wall_s=time.monotonic() - started,
        cpu_s=time.process_time() - own_cpu,
    )


if __name__ == "__main__":
    main()
