"""`relay bench slow-reader`: how old the prices of a slow reader are, and whether other readers feel it.

The server's process is asked when it has dropped the stopped reader, whose own end has full buffers.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from relay.bench.benchmarks.benchmark import (
    EVENTS_YARDSTICK,
    MAX_SUBSCRIBERS,
    Benchmark,
    Rate,
    Seconds,
    Show,
    SideName,
    Transport,
    option,
)
from relay.bench.benchmarks.delivery import (
    Delivery,
    Measured,
    made_up,
    open_bound_s,
    opened,
    pace_notes,
    server_of,
)
from relay.bench.load import slow_reader
from relay.bench.load.clients import Target
from relay.bench.load.processes import LOOK_S, STALL_S, Child, holds_connection, memory_of
from relay.bench.load.servers import Server
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import Ticks
from relay.bench.report import Figure, busy_note

WARM_UP_S = 1.0
SPARE_S = 120.0
"""Ticks that there are for more than the planned time, so that they never run out."""
WARM_UP, ALONE, BESIDE_SLOW, BESIDE_STOPPED = range(4)
"""The windows of latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReading:
    """One side of one run. The `caller` is one of the relay's Python client.

    The reader that stopped was dropped after `dropped_after_s` (None: it was not, or there is none), and cost
    `stopped_memory_kib` until then (None: there is none).
    """

    measured: Measured
    read: slow_reader.Read
    caller: slow_reader.Read | None = None
    dropped_after_s: float | None = None
    stopped_memory_kib: float | None = None


def _p99(key: str, what: str, window: int) -> Figure[SlowReading]:
    """Return the fast readers' p99 in one window as a figure."""
    return Figure(key, f"others p99 ms, {what}", lambda s: s.measured.p99_ms(window), ".1f")


@dataclass(frozen=True, kw_only=True)
class SlowReader(Benchmark[SlowReading]):
    """A reader of 20 KB/s on a channel of 145 KB/s: how old are its prices?

    What counts is the age of the newest price that it has read, over the last
    half of the time; that it does not grow; and that the fast readers beside
    it feel nothing. The same of a caller of the Python client that works on
    each price. Then a reader that stops reading: when is it dropped, and what
    does it cost until then?

    With --transport sse all of them read event streams, the yardstick is the
    relay's own WebSockets, and there is no caller.
    """

    NAME = "slow-reader"
    YARDSTICK = ("broadcast()", "websockets.broadcast() on uvloop, which waits for no client")
    QUICK = {"readers": 50, "alone_s": 2, "seconds": 6, "stopped": False}

    readers: Annotated[int, option("Fast readers beside the slow one.", 1, MAX_SUBSCRIBERS)] = 200
    rate: Rate = 1000
    rate_bytes: Annotated[int, option("Bytes a second of the slow reader.", 100, 100_000_000)] = 20_000
    seconds: Seconds = 20
    work_ms: Annotated[int, option("Milliseconds that the caller works on a price.", 1, 10_000)] = 100
    alone_s: Annotated[float, option("Seconds of the fast readers before it.", 0.1, 600, name="--alone")] = 5
    stopped: Annotated[bool, typer.Option(help="Measure a reader that stops reading as well.")] = True
    stopped_within_s: Annotated[
        float, option("Seconds in which that one should be gone.", 0.1, 600, name="--stopped-within")
    ] = 40
    transport: Transport = "websocket"

    def yardstick(self) -> tuple[str, str]:
        return EVENTS_YARDSTICK if self.transport == "sse" else self.YARDSTICK

    def headline(self) -> str:
        over = ", over event streams" if self.transport == "sse" else ""
        return (
            f"{self.rate_bytes:,} bytes/s of {self.rate:g} ticks/s for {self.seconds:g} s, "
            f"beside {self.readers:,} fast readers{over}"
        )

    def measure_side(self, name: SideName, folder: Path, show: Show) -> SlowReading:
        seconds = self.alone_s + 2 * self.seconds + (self.stopped_within_s if self.stopped else 0.0)
        ticks = made_up(["prices.BENCH"], rate=self.rate, count=self.rate * (WARM_UP_S + seconds + SPARE_S))
        is_sse = self.transport == "sse"
        served_by: SideName = "relay" if is_sse else name
        with server_of(served_by, folder, ticks, sessions=self.readers, waits=False) as server:
            target = server.target(ticks.channels)
            target = msgspec.structs.replace(target, events=is_sse and name == "relay")
            group = GroupOrder(target=target, connections=self.readers)
            with opened(server, [group], ticks, folder) as delivery:
                return self._read_slowly(server, target, delivery, ticks, folder, seconds, show)

    def _read_slowly(
        self,
        server: Server,
        target: Target,
        delivery: Delivery,
        ticks: Ticks,
        folder: Path,
        seconds: float,
        show: Show,
    ) -> SlowReading:
        started = time.monotonic()

        def watch(within_s: float, *others: Child) -> None:
            def passed(_published: int) -> None:
                show(min(int(time.monotonic() - started), int(seconds)), int(seconds), "seconds")

            delivery.watch(within_s=within_s, others=others, show=passed)

        order = slow_reader.Order(target=target, ticks=ticks, seconds=self.seconds)

        def read(name: str, **how: float) -> slow_reader.Read:
            with _reader(name, folder, msgspec.structs.replace(order, **how)) as (reader, _):
                watch(self.seconds + STALL_S, reader)
                return msgspec.convert(reader.hear(within_s=STALL_S)["result"], slow_reader.Read)

        show(0, int(seconds), "seconds")
        delivery.start()
        watch(WARM_UP_S)
        has_caller = server.base.issuer and self.transport == "websocket"
        caller = read("The caller", work_s=self.work_ms / 1000) if has_caller else None
        delivery.window()
        watch(self.alone_s)
        delivery.window()
        slow = read("The slow reader", rate_bytes=self.rate_bytes)
        dropped_after_s = memory_kib = None
        if self.stopped:
            with _reader("The stopped reader", folder, order) as (_, port):
                delivery.window()
                dropped_after_s, memory_kib = _wait_for_drop(server.pid, port, self.stopped_within_s, watch)
        return SlowReading(
            measured=delivery.finish(),
            read=slow,
            caller=caller,
            dropped_after_s=dropped_after_s,
            stopped_memory_kib=memory_kib,
        )

    def figures(self) -> Sequence[Figure[SlowReading]]:
        return [
            Figure("age_p50_ms", "slow reader: age p50 ms", "read.age_p50_ms", has_ratio=True),
            Figure("age_max_ms", "slow reader: age max ms", "read.age_max_ms", has_ratio=True),
            Figure("ageing_ms_per_s", "slow reader: ageing, ms a second", "read.ageing_ms_per_s", ",.1f"),
            Figure("caller_p50_ms", "caller of the client: age p50 ms", "caller.age_p50_ms"),
            Figure("caller_max_ms", "caller of the client: age max ms", "caller.age_max_ms"),
            _p99("alone_p99_ms", "alone", ALONE),
            _p99("beside_p99_ms", "beside it", BESIDE_SLOW),
            _p99("beside_stopped_p99_ms", "beside a stopped one", BESIDE_STOPPED),
            Figure("stopped_closed_after_s", "stopped reader: dropped after s", "dropped_after_s", ".1f"),
            Figure("stopped_memory_kib", "stopped reader: memory KiB", "stopped_memory_kib"),
            Figure("lost", "others: lost", "measured.counted.total.lost"),
            Figure("repeated", "others: repeated", "measured.counted.total.repeated"),
        ]

    def is_whole(self, relay: SlowReading) -> bool:
        return relay.measured.is_whole

    def side_notes(self, name: SideName, sides: Sequence[SlowReading]) -> list[str]:
        measured = [one.measured for one in sides]
        found = busy_note(name, [one.load_cores for one in measured]) + pace_notes(name, measured, self.rate)
        found += [f"Of the {name}: {one.read.closed}" for one in sides if one.read.closed][:1]
        if self.stopped and any(one.dropped_after_s is None for one in sides):
            found.append(f"The {name} did not drop the reader that stopped, in {self.stopped_within_s:g} s.")
        return found


@contextlib.contextmanager
def _reader(name: str, folder: Path, order: slow_reader.Order) -> Iterator[tuple[Child, int]]:
    """Let a reader connect; yields it, and the port of its end."""
    with Child.run(name, folder, "relay.bench.load.slow_reader", order=order) as reader:
        yield reader, reader.hear(within_s=open_bound_s(1))["open"]


def _wait_for_drop(
    pid: int, port: int, within_s: float, watch: Callable[[float], None]
) -> tuple[float | None, float]:
    """Wait until the server has closed the connection from `port`; return when, and how its memory has grown."""
    before = most = memory_of(pid)
    started = time.monotonic()
    closed_after_s = None
    while closed_after_s is None and (passed := time.monotonic() - started) < within_s:
        watch(LOOK_S)
        most = max(most, memory_of(pid))
        if not holds_connection(pid, port):
            closed_after_s = passed
    return closed_after_s, (most - before) / 1024
