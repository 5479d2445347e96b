"""New connections, some at a time, as a program: `python -m relay.bench.load.connections`.

Tokens and connections alternate, in portions, because a token lives for 30 seconds; so the server's CPU for either is
known apart. All connections stay open until standard input ends.
"""

import socket
import struct
import time

import msgspec

from relay.audit.jsonl import NOTE_WITHIN_S
from relay.bench.load.opener import open_all, take_all
from relay.bench.load.orders import InputEnded, carry_out, read_order, say
from relay.bench.load.processes import cpu_of, memory_of
from relay.bench.load.targets import Target

PORTION = 1000
"""Tokens that are taken before they are used. At 100 a second, an eighth of what the issuer does, that takes 10 s."""
SETTLE_S = NOTE_WITHIN_S + 0.05
"""What the server still has to do for new connections counts as theirs, like records that the relay writes later."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`connections`, of which `parallel` are opened at the same time, from the target's session `first` on.

    `pid` is the server's process, whose CPU and memory are read.
    """

    target: Target
    connections: int
    parallel: int
    first: int
    pid: int


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """What the connections took. CPU is the server's, in seconds, except `cpu_s`, this process's own in `wall_s`.

    `memory_bytes` is the growth of the server's memory. `tokens` is 0 where none are needed.
    """

    connections: int
    tokens: int
    tokens_cpu_s: float
    connects_s: float
    connects_cpu_s: float
    memory_bytes: int
    wall_s: float
    cpu_s: float


def connect_all(order: Order) -> None:
    """Open all connections, report what they took, and hold them."""
    opened: list[socket.socket] = []
    hand = tuple(range(len(order.target.channels)))
    memory_before, started, own_cpu = memory_of(order.pid), time.monotonic(), time.process_time()
    tokens_cpu_s = connects_s = connects_cpu_s = 0.0
    for start in range(0, order.connections, PORTION):
        hands = [hand] * min(PORTION, order.connections - start)
        cpu = cpu_of(order.pid)
        tokens = (
            take_all(order.target, hands, parallel=order.parallel, first=order.first + start)
            if order.target.issuer
            else None
        )
        taken_at, taken_cpu = time.monotonic(), cpu_of(order.pid)
        opened += open_all(order.target, hands, parallel=order.parallel, tokens=tokens)
        tokens_cpu_s += taken_cpu - cpu
        connects_s += time.monotonic() - taken_at
        time.sleep(SETTLE_S)
        connects_cpu_s += cpu_of(order.pid) - taken_cpu
        say(progress=len(opened))
    result = Connected(
        connections=len(opened),
        tokens=len(opened) if order.target.issuer else 0,
        tokens_cpu_s=tokens_cpu_s,
        connects_s=connects_s,
        connects_cpu_s=connects_cpu_s,
        memory_bytes=memory_of(order.pid) - memory_before,
        wall_s=time.monotonic() - started,
        cpu_s=time.process_time() - own_cpu,
    )
    say(result=result)
    try:
        read_order()
    except InputEnded:
        for one in opened:  # with a reset: thousands of ports in TIME_WAIT would be missing in the next run
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()


if __name__ == "__main__":
    carry_out(Order, connect_all)
