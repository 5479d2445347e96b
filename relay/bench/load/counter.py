"""Counts what arrives on many sockets, as cheaply as Python can, so that the load is not what is measured.

Nothing is parsed. Each read takes all that the kernel has into one large buffer and counts a marker in it. A
marker may be cut in two by a read, so the last bytes of each read, one fewer than a marker has, stand before
the next one: no marker is missed, none is counted twice. Latencies are taken on a few connections only.

What tells lost from conflated is the end mark, the value behind a channel's last tick. On a channel of mode
`latest` every subscriber must get it, whatever it missed before; a connection without one has lost something. On
a `stream` channel nothing may be missing at all.
"""

import contextlib
import re
import select
import socket
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence

from relay.bench.load.opener import close_reason
from relay.bench.load.ticks import Ticks
from relay.bench.load.totals import Counted, Group, group_of, latency_of

READ_BYTES = 262_144
TURN_S = 0.1
PONG_EVERY_S = 15.0
"""An unasked-for pong (RFC 6455 §5.5.3) says that we are there; answering pings would need a parser."""
SAMPLED = 50
"""Connections of a group on which latency is taken, spread evenly: a server writes to some always first."""
MAX_SAMPLES = 1_000_000

_PONG = b"\x8a\x80\0\0\0\0"

Told = Callable[[], Sequence[int] | None]
"""Reads what the command says: the number of ticks of each channel when all are out, else None: a new window."""


class Connection:
    """One connection of a group: which channels it has, and what came."""

    __slots__ = (
        "disordered",
        "ended",
        "group",
        "hand",
        "highest",
        "numbers",
        "sampled",
        "socket",
        "tail",
        "ticks",
        "twice",
    )

    def __init__(self, connection: socket.socket, hand: Sequence[int], *, group: int) -> None:
        self.socket = connection
        self.hand = hand
        self.group = group
        self.ticks = 0
        self.tail = bytearray()
        self.sampled = False
        self.ended: set[int] = set()  # channels whose end mark came
        self.numbers: bytearray | None = None  # of a stream: 1 for each number that came
        self.twice = 0
        self.highest = -1  # of the numbers that came
        self.disordered = 0


class Counter:
    """Counts the ticks on non-blocking sockets until each has the end mark of each of its channels.

    `groups` are connections of one kind each; of those in `streams` nothing may be missing. `stall_s` is how
    long nothing may arrive before it gives up, `ticks_each` about how many ticks one connection will get.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Connection]],
        ticks: Ticks,
        *,
        streams: frozenset[int] = frozenset(),
        stall_s: float,
        ticks_each: int = 1,
    ) -> None:
        self._groups = groups
        self._streams = streams
        self._stall_s = stall_s
        self._marker = ticks.marker
        self._time = re.compile(re.escape(ticks.marker) + rb"(\d+)\D")
        self._end = re.compile(re.escape(ticks.end_marker) + rb"(\d{5})")
        self._number = re.compile(re.escape(ticks.number_marker) + rb"(\d{9})")
        keep = len(ticks.end_marker) + 5 + len(ticks.number_marker) + 9  # longer than each of the marks
        self._buffer = bytearray(keep + READ_BYTES)
        self._fresh = memoryview(self._buffer)[keep:]
        self._keep = keep
        # before these places a mark would be one of the last read's
        self._begin = keep - len(ticks.marker) + 1
        self._number_begin = keep - len(ticks.number_marker) - 9 + 1
        self._end_length = len(ticks.end_marker) + 5
        for place, group in enumerate(groups):
            step = max(1, len(group) // min(SAMPLED, max(1, MAX_SAMPLES // max(1, ticks_each))))
            for index, connection in enumerate(group):
                connection.sampled = index % step == 0
                connection.tail = bytearray(keep)
                if place in streams and connection.sampled:
                    connection.numbers = bytearray()
        self._connections = {c.socket.fileno(): c for group in groups for c in group}
        self._epoll = select.epoll()
        for descriptor in self._connections:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._waiting = len(self._connections)  # connections that are open and without all end marks
        self._published: Sequence[int] | None = None
        self._closed = self._reads = self._bytes = 0
        self._close_reason = ""
        self._samples: list[list[list[int]]] = [[[]] for _ in groups]
        self._seconds: Tally[int] = Tally()

    def run(self, control: int, told: Told) -> Counted:
        """Count. When the file descriptor `control` is readable `told` is called; what it raises ends the counting."""
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
                    self._hear(told())
                    heard_at = now
                else:
                    found += self._read(self._connections[descriptor])
            if found:
                first = first or now
                last = heard_at = now
                self._seconds[int(now - first)] += found
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

    def _hear(self, published: Sequence[int] | None) -> None:
        if published is not None:
            self._published = published
            return
        for windows in self._samples:
            windows.append([])

    def _read(self, connection: Connection) -> int:
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
        if connection.sampled and found:
            self._sample(connection, end)
        if self._published is not None and len(connection.ended) < len(connection.hand):
            self._look_for_ends(connection, keep - self._end_length + 1, end)
        return found

    def _sample(self, connection: Connection, end: int) -> None:
        samples = self._samples[connection.group][-1]
        if len(samples) < MAX_SAMPLES:
            read_at = time.monotonic_ns()
            samples.extend(read_at - int(m[1]) for m in self._time.finditer(self._buffer, self._begin, end))
        if connection.numbers is None:
            return
        for match in self._number.finditer(self._buffer, self._number_begin, end):
            number, seen = int(match[1]), connection.numbers
            if number >= len(seen):
                seen.extend(bytes(number - len(seen) + 1))
            connection.twice += seen[number]
            if number > connection.highest:
                connection.highest = number
            elif not seen[number] and len(connection.hand) == 1:  # numbers count across channels
                connection.disordered += 1
            seen[number] = 1

    def _look_for_ends(self, connection: Connection, begin: int, end: int) -> None:
        for match in self._end.finditer(self._buffer, begin, end):
            connection.ended.add(int(match[1]))
        if len(connection.ended) == len(connection.hand):
            self._waiting -= 1

    def _lose(self, connection: Connection) -> None:
        """The server has closed the connection."""
        self._epoll.unregister(connection.socket)
        self._closed += 1
        self._close_reason = self._close_reason or close_reason(connection.tail)
        if len(connection.ended) < len(connection.hand):
            self._waiting -= 1

    def _pong(self) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # closed, which the next read finds out
                connection.socket.send(_PONG)

    def _result(self, *, seconds: float, wall_s: float, cpu_s: float) -> Counted:
        return Counted(
            groups=list(self._groups_found()),
            is_whole=self._published is not None and not self._closed,
            closed=self._closed,
            close_reason=self._close_reason,
            stalled=self._waiting > 0,
            reads=self._reads,
            bytes=self._bytes,
            seconds=seconds,
            peak_per_s=max(self._seconds.values(), default=0),
            wall_s=wall_s,
            cpu_s=cpu_s,
        )

    def _groups_found(self) -> Iterator[Group]:
        for place, group in enumerate(self._groups):
            found = [
                (
                    connection.ticks,
                    sum(self._published[channel] for channel in connection.hand) if self._published else 0,
                    len(connection.hand) - len(connection.ended),
                    connection.twice,
                )
                for connection in group
            ]
            ended = sum(len(connection.ended) for connection in group)
            windows = [latency_of(samples) for samples in self._samples[place]]
            yield group_of(
                found,
                ended=ended,
                disordered=sum(connection.disordered for connection in group),
                stream=place in self._streams,
                windows=windows,
            )
