"""Counts what arrives on many sockets, as cheaply as Python can, so that the load is not what is measured.

Nothing is parsed. Each read takes all that the kernel has into one large buffer and counts a marker in it. A
marker may be cut in two by a read, so the last bytes of each read, one fewer than a marker has, stand before
the next one: no marker is missed, none is counted twice. Latencies are taken on a few connections only.

What tells lost from conflated is the end mark, the value behind the last tick. On a channel of mode `latest`
every subscriber must get it, whatever it missed before; a connection without it has lost something.
"""

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Sequence

import msgspec

from relay.bench.opening import close_reason

READ_BYTES = 262_144
TURN_S = 0.1
PONG_EVERY_S = 15.0
"""An unasked-for pong (RFC 6455 §5.5.3) says that we are there; answering pings would need a parser."""
SAMPLED = 50
"""Connections on which latency is taken, spread evenly: a server writes to some always first."""
MAX_SAMPLES = 1_000_000

_PONG = b"\x8a\x80\0\0\0\0"


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived. Times are seconds, latencies milliseconds (None without a sample).

    `ended` is on how many connections the end mark came. `conflated` deliveries are missing on connections
    where it came, `lost` ones where it did not; `repeated` are too many. `close_reason` is a sentence about the
    first connection that the server closed, if it said why. `seconds` is from the first tick to
    the last, `wall_s` from the first look to the end, `cpu_s` what this process used in that time.
    """

    delivered: int
    ended: int
    conflated: int
    lost: int
    repeated: int
    closed: int
    close_reason: str
    stalled: bool
    reads: int
    bytes: int
    seconds: float
    wall_s: float
    cpu_s: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class _Connection:
    __slots__ = ("ended", "sampled", "socket", "tail", "ticks")

    def __init__(self, connection: socket.socket, tail: bytearray, *, sampled: bool) -> None:
        self.socket = connection
        self.tail = tail
        self.ticks = 0
        self.sampled = sampled
        self.ended = False


class Counter:
    """Counts `marker` on non-blocking sockets until each has seen `end_marker`.

    `stall_s` is how long nothing may arrive before it gives up.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        ticks: int,
        marker: bytes,
        end_marker: bytes,
        stall_s: float,
    ) -> None:
        self._expected = ticks
        self._marker = marker
        self._end_marker = end_marker
        self._stall_s = stall_s
        keep = max(len(marker), len(end_marker)) - 1
        self._buffer = bytearray(keep + READ_BYTES)
        self._fresh = memoryview(self._buffer)[keep:]
        self._keep = keep
        self._begin = keep - len(marker) + 1  # before it, a marker would be one of the last read's
        self._time = re.compile(re.escape(marker) + rb"(\d+)\D")
        step = max(1, len(sockets) // min(SAMPLED, max(1, MAX_SAMPLES // ticks)))
        self._connections = {
            sock.fileno(): _Connection(sock, bytearray(keep), sampled=index % step == 0)
            for index, sock in enumerate(sockets)
        }
        self._epoll = select.epoll()
        for descriptor in self._connections:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._waiting = len(sockets)  # connections that are open and without the end mark
        self._finishing = False
        self._closed = self._reads = self._bytes = 0
        self._close_reason = ""
        self._samples: list[int] = []

    def run(self, control: int, command: Callable[[], bool]) -> Counted:
        """Count. When the file descriptor `control` is readable `command` is called; it returns True when the
        publisher is done and sends the end mark next. What it raises ends the counting.
        """
        started, cpu_started = time.monotonic(), time.process_time()
        self._epoll.register(control, select.EPOLLIN)
        first = last = 0.0
        heard_at = pong_at = started
        while self._waiting:
            events = self._epoll.poll(TURN_S, 1024)
            now = time.monotonic()
            found = 0
            for descriptor, _ in events:
                if descriptor == control:
                    self._finishing = command() or self._finishing
                    heard_at = now
                else:
                    found += self._read(self._connections[descriptor])
            if found:
                first = first or now
                last = heard_at = now
            elif now - heard_at > self._stall_s:
                break
            if now - pong_at > PONG_EVERY_S:
                pong_at = now
                self._pong()
        wall, cpu = time.monotonic() - started, time.process_time() - cpu_started
        return self._result(seconds=last - first, wall_s=wall, cpu_s=cpu)

    def close(self) -> None:
        """Close all connections."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()

    def _read(self, connection: _Connection) -> int:
        """Read once; returns how many ticks were in it."""
        buffer, keep = self._buffer, self._keep
        buffer[:keep] = connection.tail
        try:
            size = connection.socket.recv_into(self._fresh)
        except BlockingIOError:
            return 0
        except OSError:
            size = 0
        if not size:
            self._lose(connection)
            return 0
        end = keep + size
        connection.tail = buffer[size:end]
        self._reads += 1
        self._bytes += size
        found = buffer.count(self._marker, self._begin, end)
        connection.ticks += found
        if connection.sampled and found and len(self._samples) < MAX_SAMPLES:
            read_at = time.monotonic_ns()
            times = self._time.finditer(buffer, self._begin, end)
            self._samples.extend(read_at - int(match[1]) for match in times)
        if self._finishing and not connection.ended and buffer.find(self._end_marker, 0, end) >= 0:
            connection.ended = True
            self._waiting -= 1
        return found

    def _lose(self, connection: _Connection) -> None:
        """The server has closed the connection."""
        self._epoll.unregister(connection.socket)
        self._closed += 1
        self._close_reason = self._close_reason or close_reason(connection.tail)
        if not connection.ended:
            self._waiting -= 1

    def _pong(self) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # closed, which the next read finds out
                connection.socket.send(_PONG)

    def _result(self, *, seconds: float, wall_s: float, cpu_s: float) -> Counted:
        expected = self._expected
        connections = self._connections.values()
        samples = sorted(self._samples)
        return Counted(
            delivered=sum(connection.ticks for connection in connections),
            ended=sum(connection.ended for connection in connections),
            conflated=sum(
                max(0, expected - connection.ticks) for connection in connections if connection.ended
            ),
            lost=sum(
                max(0, expected - connection.ticks) for connection in connections if not connection.ended
            ),
            repeated=sum(max(0, connection.ticks - expected) for connection in connections),
            closed=self._closed,
            close_reason=self._close_reason,
            stalled=self._waiting > 0,
            reads=self._reads,
            bytes=self._bytes,
            seconds=seconds,
            wall_s=wall_s,
            cpu_s=cpu_s,
            p50_ms=_quantile(samples, 0.5),
            p99_ms=_quantile(samples, 0.99),
            max_ms=_quantile(samples, 1.0),
        )


def _quantile(ordered: Sequence[int], share: float) -> float | None:
    """Return a quantile of nanoseconds, in milliseconds."""
    return ordered[int((len(ordered) - 1) * share)] / 1e6 if ordered else None
