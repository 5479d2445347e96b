"""Subscribers that count what arrives, as a program: `python -m relay.bench.load.subscribers`.

    in   {"groups": [{"target": {…}, "connections": n, …}], "ticks": {…}, "stall_s": …}
    out  {"open": true}                 all connections are open and subscribed
    in   {"window": true}               a new window of latencies begins
    out  {"window": true}
    out  {"counted": {…}}               see `Counted`: all has arrived, or nothing comes any more; the program ends

They count as cheaply as Python can, so that the load is not what is measured: nothing is parsed. Each read takes all
that the kernel has into one large buffer and counts a marker in it. A read may cut a marker in two, so the last bytes
of each read stand before the next one, one fewer than a marker has: no marker is missed, none is counted twice.
Latencies are taken on a few connections only. README.md says what end marks are for.
"""

import contextlib
import gc
import random
import re
import select
import socket
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from relay.bench.load.clients import Target, close_reason, open_all
from relay.bench.load.orders import carry_out, read_order, say
from relay.bench.load.ticks import Ticks

READ_BYTES = 262_144
TURN_S = 0.1
PONG_EVERY_S = 15.0
"""A pong without a ping (RFC 6455 §5.5.3) shows that the client is alive; answering pings would need a parser."""
SAMPLED = 50
"""Connections of a group on which latency is taken, spread evenly: a server writes to some always first."""
MAX_SAMPLES = 2_000_000

_PONG = b"\x8a\x80\0\0\0\0"


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """From the making of a tick to its reading, in milliseconds; None without a sample."""

    samples: int
    p50_ms: float | None
    p99_ms: float | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived on the connections of one kind.

    `ended` is how many end marks came. Of the deliveries that were `expected` some are missing: `conflated` on
    connections that got the last value of every channel, `lost` on the others and on all connections of `stream`
    channels; where only last values are missing, those are the lost ones. `repeated` are too many. `disordered` came
    after a later one of their channel, counted where a connection has one channel of a stream. `bytes` came in all. A
    new window of latencies begins at each order for one.
    """

    expected: int
    delivered: int
    ended: int
    conflated: int
    lost: int
    repeated: int
    disordered: int = 0
    bytes: int = 0
    windows: list[Latency] = []


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived in all.

    The server has `closed` so many connections; `close_reason` is a sentence about the first of them. `stalled`:
    something was missing when nothing came any more. `seconds` is from the first tick to the last, `wall_s` from the
    first look to the end, `cpu_s` what this process used in that time.
    """

    groups: list[Group]
    closed: int
    close_reason: str
    stalled: bool
    reads: int
    seconds: float
    wall_s: float
    cpu_s: float

    @property
    def total(self) -> Group:
        """The sum of all groups, without latencies."""
        names = ("expected", "delivered", "ended", "conflated", "lost", "repeated", "disordered", "bytes")
        return Group(**{name: sum(getattr(group, name) for group in self.groups) for name in names})


def quantile(ordered: Sequence[float], share: float, *, unit: float = 1.0) -> float | None:
    """Return a quantile of sorted values, divided by `unit`; None if there are none."""
    return ordered[int((len(ordered) - 1) * share)] / unit if ordered else None


def inflated(data: bytes) -> tuple[bytes, bytes]:
    """Return what complete frames hold (those without compression as they are), and the rest (RFC 7692 §7.2.2)."""
    found = []
    while len(data) > 1:
        start = {126: 4, 127: 10}.get(data[1], 2)
        end = start + (int.from_bytes(data[2:start], "big") if start > 2 else data[1])
        if len(data) < end:
            break
        inflater = zlib.decompressobj(-15) if data[0] & 0b0100_0000 else None
        found.append(inflater.decompress(data[start:end] + b"\0\0\xff\xff") if inflater else data[:end])
        data = data[end:]
    return b"".join(found), data


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of a group: the places of its channels (`hand`), and what came."""

    socket: socket.socket
    hand: Sequence[int]
    group: int
    silent: bool = False  # an event stream's client has nothing to say
    rest: bytes | None = None  # of a connection with compression: a frame that is not complete
    bytes: int = 0
    ticks: int = 0
    tail: bytearray = field(default_factory=bytearray)
    sampled: bool = False
    ended: set[int] = field(default_factory=set)  # channels whose end mark came
    numbers: bytearray | None = None  # of a stream: 1 for each number that came
    twice: int = 0
    highest: int = -1  # of the numbers that came
    disordered: int = 0


class Counter:
    """Counts the ticks on non-blocking sockets until each has the end mark of each of its channels.

    `groups` are connections of one kind each; of those in `streams` nothing may be missing. It gives up when nothing
    arrives for `stall_s`.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Connection]],
        ticks: Ticks,
        *,
        streams: frozenset[int] = frozenset(),
        stall_s: float,
    ) -> None:
        self._groups = groups
        self._streams = streams
        self._stall_s = stall_s
        self._marker = ticks.marker
        self._time = re.compile(re.escape(ticks.marker) + rb"(\d+)\D")
        self._end_marker = ticks.end_marker
        self._end = re.compile(re.escape(ticks.end_marker) + rb"(\d{5})\.(\d{9})")
        self._number = re.compile(re.escape(ticks.number_marker) + rb"(\d{9})")
        keep = len(ticks.end_marker) + 15 + len(ticks.number_marker) + 9  # longer than each of the marks
        self._buffer = bytearray(keep + READ_BYTES)
        self._fresh = memoryview(self._buffer)[keep:]
        self._keep = keep
        # before these places a mark would be one of the last read's
        self._begin = keep - len(ticks.marker) + 1
        self._number_begin = keep - len(ticks.number_marker) - 9 + 1
        self._end_begin = keep - len(ticks.end_marker) - 15 + 1
        for place, group in enumerate(groups):
            each = ticks.count * len(group[0].hand) // len(ticks.channels)
            step = max(1, len(group) // min(SAMPLED, max(1, MAX_SAMPLES // max(1, each))))
            for index, connection in enumerate(group):
                connection.sampled = index % step == 0
                connection.tail = bytearray(keep)
                if place in streams and connection.sampled:
                    connection.numbers = bytearray()
        self._connections = {c.socket.fileno(): c for group in groups for c in group}
        self._epoll = select.epoll()
        for descriptor in self._connections:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._waiting = set(self._connections.values())  # those that are open and without all end marks
        self._published: dict[int, int] = {}  # ticks of each channel that had an end mark
        self._closed = self._reads = 0
        self._close_reason = ""
        self._samples: list[list[list[int]]] = [[[]] for _ in groups]

    def run(self, control: int, hear: Callable[[], object]) -> Counted:
        """Count. When the file descriptor `control` is readable `hear` is called, and a new window of latencies begins;
        what `hear` raises ends the counting.
        """
        started, cpu_started = time.monotonic(), time.process_time()
        self._epoll.register(control, select.EPOLLIN)
        first = 0.0
        last = pong_at = started
        while self._waiting:
            events = self._epoll.poll(TURN_S, 1024)
            now = time.monotonic()
            found = 0
            for descriptor, _ in events:
                if descriptor == control:
                    hear()
                    for windows in self._samples:
                        windows.append([])
                else:
                    found += self._read(self._connections[descriptor])
            if found:
                first = first or now
                last = now
            elif now - last > self._stall_s:
                break
            if now - pong_at > PONG_EVERY_S:
                pong_at = now
                for connection in self._connections.values():
                    if connection.silent:
                        continue
                    with contextlib.suppress(OSError):  # closed, which the next read finds out
                        connection.socket.send(_PONG)
        return Counted(
            groups=[self._group(place) for place in range(len(self._groups))],
            closed=self._closed,
            close_reason=self._close_reason,
            stalled=bool(self._waiting),
            reads=self._reads,
            seconds=last - first if first else 0.0,
            wall_s=time.monotonic() - started,
            cpu_s=time.process_time() - cpu_started,
        )

    def close(self) -> None:
        """Close all connections."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()

    def _read(self, connection: Connection) -> int:
        """Read once; returns how many ticks were in it."""
        buffer, keep = self._buffer, self._keep
        buffer[:keep] = connection.tail
        try:
            # there must be room when it is inflated
            limit = 0 if connection.rest is None else READ_BYTES // 16
            size = connection.socket.recv_into(self._fresh, limit)
        except BlockingIOError:
            return 0
        except OSError:
            size = 0
        if not size:
            self._lose(connection)
            return 0
        connection.bytes += size
        if connection.rest is not None:
            plain, connection.rest = inflated(connection.rest + bytes(self._fresh[:size]))
            size = len(plain)
            self._fresh[:size] = plain
        end = keep + size
        connection.tail = buffer[size:end]
        self._reads += 1
        found = buffer.count(self._marker, self._begin, end)
        connection.ticks += found
        if connection.sampled and found:
            self._sample(connection, end)
        if buffer.find(self._end_marker, self._end_begin, end) >= 0:
            self._look_for_ends(connection, end)
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

    def _look_for_ends(self, connection: Connection, end: int) -> None:
        for match in self._end.finditer(self._buffer, self._end_begin, end):
            connection.ended.add(int(match[1]))
            self._published[int(match[1])] = int(match[2])
        if len(connection.ended) == len(connection.hand):
            self._waiting.discard(connection)

    def _lose(self, connection: Connection) -> None:
        """The server has closed the connection."""
        self._epoll.unregister(connection.socket)
        self._closed += 1
        self._close_reason = self._close_reason or close_reason(connection.tail)
        self._waiting.discard(connection)

    def _group(self, place: int) -> Group:
        group = self._groups[place]
        expected = delivered = conflated = lost = repeated = 0
        for one in group:
            without_end = len(one.hand) - len(one.ended)
            # nobody knows how many ticks a channel had whose end mark never came
            is_known = all(channel in self._published for channel in one.hand)
            due = sum(self._published[channel] for channel in one.hand) if is_known else one.ticks
            missing = max(0, due - one.ticks + one.twice)
            expected += due
            delivered += one.ticks
            repeated += max(one.twice, one.ticks - due)
            if place in self._streams or without_end:
                lost += max(missing, without_end)
            else:
                conflated += missing
        ordered = [sorted(samples) for samples in self._samples[place]]
        return Group(
            expected=expected,
            delivered=delivered,
            ended=sum(len(one.ended) for one in group),
            conflated=conflated,
            lost=lost,
            repeated=repeated,
            disordered=sum(one.disordered for one in group),
            bytes=sum(one.bytes for one in group),
            windows=[
                Latency(
                    samples=len(ns), p50_ms=quantile(ns, 0.5, unit=1e6), p99_ms=quantile(ns, 0.99, unit=1e6)
                )
                for ns in ordered
            ],
        )


class GroupOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Connections of one kind, each to `each` of the target's channels (0: all).

    Nothing may be missing if they are a `stream`.
    """

    target: Target
    connections: int
    each: int = 0
    stream: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to open and what to count."""

    groups: list[GroupOrder]
    ticks: Ticks
    stall_s: float


def deal(subscribers: int, channels: int, each: int) -> list[tuple[int, ...]]:
    """Return for each subscriber the places of its channels, none twice. `each` is at most `channels`; 0 is all.

    Every channel gets as many subscribers as every other, give or take one. Channels are dealt like cards, from a
    shuffled deck that is shuffled again when it is empty. A plain rule ("every twentieth") would give most subscribers
    the same set, and a server could serve sets instead of channels. The shuffle is the same for every server.
    """
    if not each or each == channels:
        return [tuple(range(channels))] * subscribers
    shuffler = random.Random(1)  # noqa: S311  # not a secret: the same for all
    deck: list[int] = []
    hands = []
    for _ in range(subscribers):
        hand: list[int] = []
        aside: list[int] = []  # what it has already, for the next one
        while len(hand) < each:
            if not deck:
                deck = list(range(channels))
                shuffler.shuffle(deck)
            card = deck.pop()
            (aside if card in hand else hand).append(card)
        deck += aside
        hands.append(tuple(hand))
    return hands


async def count_all(order: Order) -> None:
    """Open all connections, and count until everything has arrived."""
    places = {name: place for place, name in enumerate(order.ticks.channels)}
    groups = [await _open(group, number, places) for number, group in enumerate(order.groups)]
    counter = Counter(
        groups,
        order.ticks,
        streams=frozenset(place for place, group in enumerate(order.groups) if group.stream),
        stall_s=order.stall_s,
    )
    gc.freeze()
    gc.disable()  # a collection would be reported as the server's latency; nothing here makes cycles
    say(open=True)
    say(counted=counter.run(sys.stdin.fileno(), _hear))
    counter.close()


async def _open(group: GroupOrder, number: int, places: Mapping[str, int]) -> list[Connection]:
    hands = deal(group.connections, len(group.target.channels), group.each)
    links = await open_all(group.target, hands)
    found, target = [], group.target
    for link, hand in zip(links, hands, strict=True):
        channels = [places[target.channels[card]] for card in hand]
        rest = link.received if target.compress else None
        found.append(Connection(link.socket, channels, group=number, silent=target.events, rest=rest))
    return found


def _hear() -> None:
    read_order()
    say(window=True)


if __name__ == "__main__":
    carry_out(Order, count_all)
