"""`relay bench slow-reader`: how old the prices are that a slow reader sees, and whether the others feel it.

Some fast readers take a channel, first alone, then beside one that reads less than the channel has, then beside
one that has stopped reading altogether. Prices that are queued for a slow reader are old prices: what counts is
the age of the newest one that it has read, and that it does not grow. Who stops reading must be gone in the end,
and must not cost memory until then.

When the stopped one was dropped can't be seen at its own end, whose buffers are full: the server's process is
looked at instead, whether it still holds the connection.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from relay.bench.benchmarks.delivery import LOOK_S, OPEN_BASE_S, Delivery, Measured, opened
from relay.bench.benchmarks.runs import FILES_BESIDE, STALL_S, Progress, Run, Told, in_turn
from relay.bench.load import slow_reader as reading
from relay.bench.load.processes import Child, allow_open_files, holds_connection
from relay.bench.load.servers import Subject, relay_subject, yardstick_subject
from relay.bench.load.slow_reader import Read
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import Ticks
from relay.bench.load.totals import Latency

WARM_UP_S = 1.0
SPARE_S = 120.0
"""Ticks that there are for more than the planned time, so that they never run out."""
WARM_UP, ALONE, BESIDE_SLOW, BESIDE_STOPPED = range(4)
"""The windows of latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReaderOptions:
    """What to measure. `rate` is ticks of 145 bytes a second, `rate_bytes` what the slow reader reads a second.

    `alone_s` is how long the fast readers are without it, `seconds` how long it reads, `stopped_s` how long the
    one that reads nothing is waited for; 0: there is none.
    """

    readers: int
    rate: float
    rate_bytes: int
    alone_s: float
    seconds: float
    stopped_s: float
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The reader that stopped: after how many seconds it was dropped (None: it was not), and what it cost."""

    closed_after_s: float | None
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReading:
    """One side of one run."""

    measured: Measured
    read: Read
    stopped: Stopped | None

    def fast(self, window: int) -> Latency | None:
        """Return the fast readers' latency in one window, None if it was not measured."""
        windows = self.measured.counted.groups[0].windows
        return windows[window] if window < len(windows) else None


def run_slow_reader(options: SlowReaderOptions, progress: Progress) -> list[Run[SlowReading]]:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(options.readers + FILES_BESIDE)

    def relay(folder: Path, told: Told) -> SlowReading:
        ticks = _ticks(options)
        with relay_subject(folder, ticks, sessions=options.readers) as subject:
            return _measure(options, subject, ticks, folder, told)

    def yardstick(folder: Path, told: Told) -> SlowReading:
        ticks = _ticks(options)
        with yardstick_subject(folder, ticks, waits=False) as subject:
            return _measure(options, subject, ticks, folder, told)

    return in_turn(options.runs, progress, relay=relay, yardstick=yardstick)


def _ticks(options: SlowReaderOptions) -> Ticks:
    seconds = WARM_UP_S + options.alone_s + options.seconds + options.stopped_s + SPARE_S
    return Ticks(
        run=secrets.token_hex(4),
        channels=["prices.BENCH"],
        rate=options.rate,
        count=round(options.rate * seconds),
    )


def _measure(
    options: SlowReaderOptions, subject: Subject, ticks: Ticks, folder: Path, told: Told
) -> SlowReading:
    group = GroupOrder(target=subject.target(ticks.channels), connections=options.readers)
    seconds = options.alone_s + options.seconds + options.stopped_s
    started = time.monotonic()

    def said(_published: int) -> None:
        told(min(int(time.monotonic() - started), int(seconds)), int(seconds), "seconds")

    ticks_each = round(options.rate * seconds)
    with opened(subject, [group], ticks, folder, ticks_each=ticks_each, pause_s=3 / options.rate) as delivery:
        told(0, int(seconds), "seconds")
        started = time.monotonic()
        delivery.start()
        delivery.watch(within_s=WARM_UP_S, told=said)
        delivery.window()
        delivery.watch(within_s=options.alone_s, told=said)
        order = reading.Order(
            target=subject.target(ticks.channels),
            ticks=ticks,
            rate_bytes=options.rate_bytes,
            seconds=options.seconds,
        )
        with Child.run("The slow reader", ["relay.bench.load.slow_reader"], folder / "slow.log") as reader:
            _send_off(reader, order)
            delivery.window()
            delivery.watch(within_s=options.seconds + STALL_S, others=[reader], told=said)
            read = msgspec.convert(reader.hear(within_s=STALL_S)["read"], Read)
        stopped = None
        if options.stopped_s and subject.pid is not None:
            with Child.run(
                "The stopped reader", ["relay.bench.load.slow_reader"], folder / "stopped.log"
            ) as reader:
                port = _send_off(reader, msgspec.structs.replace(order, rate_bytes=0))
                delivery.window()
                stopped = _wait_for_drop(delivery, subject.pid, port, options.stopped_s, said)
        return SlowReading(measured=delivery.finish(), read=read, stopped=stopped)


def _send_off(reader: Child, order: reading.Order) -> int:
    """Let a reader connect; returns the port of its end."""
    reader.say(order)
    port: int = reader.hear(within_s=OPEN_BASE_S)["open"]
    return port


def _wait_for_drop(
    delivery: Delivery, pid: int, port: int, within_s: float, said: Callable[[int], None]
) -> Stopped:
    """Wait until the server has let go of the connection from `port`, and see how its memory grows meanwhile."""
    before = most = delivery.subject.memory() or 0
    started = time.monotonic()
    closed_after_s = None
    while (passed := time.monotonic() - started) < within_s:
        delivery.watch(within_s=LOOK_S, told=said)
        most = max(most, delivery.subject.memory() or 0)
        if not holds_connection(pid, port):
            closed_after_s = passed
            break
    return Stopped(closed_after_s=closed_after_s, memory_bytes=most - before)
