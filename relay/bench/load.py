"""The load as a process: `python -m relay.bench.load`, told what to do by lines on standard input.

    in   {"target": {…}, "connections": n, "ticks": n, "marker": …, "end_marker": …, "stall_s": …}
    out  {"open": n, "seconds": s}      all connections are open, subscribed, and quiet
    in   {"finish": true}               the ticks are published
    out  {"finishing": true}            now the end mark may come
    out  {"counted": {…}}               see `relay.bench.counting.Counted`; the process ends

A sentence in `{"error": …}` instead of any of these ends it too, as does the end of standard input.
"""

import gc
import os
import sys
import time

import msgspec

from relay.bench.counting import Counted, Counter
from relay.bench.opening import Opener, Target
from relay.core.errors import RelayError


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to open and what to count."""

    target: Target
    connections: int
    ticks: int
    marker: str
    end_marker: str
    stall_s: float


class _Gone(Exception):  # noqa: N818  # nobody's error: whoever started this process has left
    """Standard input has ended."""


def main() -> None:
    """Carry out one order."""
    try:
        order = msgspec.json.decode(_read_line(), type=Order)
        started = time.monotonic()
        sockets = Opener(order.target).open_all(order.connections)
        counter = Counter(
            sockets,
            ticks=order.ticks,
            marker=order.marker.encode(),
            end_marker=order.end_marker.encode(),
            stall_s=order.stall_s,
        )
        gc.freeze()
        gc.disable()  # a collection would be reported as the server's latency; the load makes no cycles
        _say({"open": len(sockets), "seconds": time.monotonic() - started})
        counted: Counted = counter.run(sys.stdin.fileno(), _finish)
        _say({"counted": msgspec.to_builtins(counted)})
        counter.close()
    except RelayError as error:
        _say({"error": str(error)})
    except (_Gone, BrokenPipeError):
        sys.exit(1)


def _finish() -> bool:
    _read_line()
    _say({"finishing": True})
    return True


def _read_line() -> bytes:
    """Read one line. Never two: the next one is sent only when this one was answered, and epoll sees it then."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(sys.stdin.fileno(), 65_536)
        if not chunk:
            raise _Gone
        line += chunk
    return bytes(line)


def _say(message: dict[str, object]) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    main()
