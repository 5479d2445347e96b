"""`relay bench connect`: what a token and a connection cost, and whether a burst of them is felt by those who listen.

Two bursts. In the first nothing else happens, so that the server's CPU and memory are the newcomers' alone, and tokens
are taken before the connections that use them. In the second, with `hold`, there are subscribers of a channel already,
and the latency of its ticks is taken before the burst and through it; there every newcomer takes its token and connects
with it at once, and all of them come at the same time, as after a restart.

The yardstick is a plain server of the same library, on the same loop, that checks nothing.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from relay.bench import BenchError
from relay.bench.benchmarks.delivery import LOOK_S, OPEN_BASE_S, OPEN_EACH_S, Delivery, Measured, opened
from relay.bench.benchmarks.runs import FILES_BESIDE, STALL_S, Progress, Run, Told, in_turn
from relay.bench.load import connections as connecting
from relay.bench.load.browsers import Arrived
from relay.bench.load.connections import Connecting
from relay.bench.load.processes import Child, allow_open_files, wait_for_words
from relay.bench.load.servers import Subject, relay_subject, yardstick_subject
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.targets import Target
from relay.bench.load.ticks import Ticks
from relay.bench.load.totals import Latency

Newcomers = TypeVar("Newcomers", Connecting, Arrived)

WARM_UP_S = 1.0
TICKS, IDLE = "prices.BENCH", "prices.IDLE"
"""Newcomers subscribe to a channel of which nothing comes: an idle connection is what is measured."""
QUIET, BURST = 1, 2
"""The windows of latency; the first is the warm-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """What to measure. `parallel` connections of the first burst are on their way at any time; all of the second.

    `hold` subscribers listen to `rate` ticks a second, for `quiet_s` before the second burst; 0: no second burst.
    """

    connections: int
    parallel: int
    hold: int
    rate: float
    quiet_s: float
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """One side of one run: the burst alone, and the one beside subscribers with what those got."""

    alone: Connecting
    beside: Arrived | None
    held: Measured | None

    def latency(self, window: int) -> Latency | None:
        """Return the held subscribers' latency in one window, None if there are none."""
        return None if self.held is None else self.held.counted.groups[0].windows[window]


def run_connect(options: ConnectOptions, progress: Progress) -> list[Run[Bursts]]:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(options.connections + options.hold + FILES_BESIDE)

    def relay(folder: Path, told: Told) -> Bursts:
        ticks = _ticks(options)
        with relay_subject(folder, ticks, sessions=options.connections + options.hold) as subject:
            return _measure(options, subject, subject.target([IDLE]), ticks, folder, told)

    def yardstick(folder: Path, told: Told) -> Bursts:
        ticks = _ticks(options)
        with yardstick_subject(folder, ticks) as subject:
            return _measure(options, subject, subject.target([]), ticks, folder, told)

    return in_turn(options.runs, progress, relay=relay, yardstick=yardstick)


def _ticks(options: ConnectOptions) -> Ticks:
    seconds = WARM_UP_S + options.quiet_s + _bound_s(options.connections) + STALL_S
    return Ticks(
        run=secrets.token_hex(4), channels=[TICKS], rate=options.rate, count=round(options.rate * seconds)
    )


def _bound_s(connections: int) -> float:
    return OPEN_BASE_S + OPEN_EACH_S * connections


def _measure(
    options: ConnectOptions, subject: Subject, target: Target, ticks: Ticks, folder: Path, told: Told
) -> Bursts:
    assert subject.pid is not None  # both are servers of our own
    order = connecting.Order(
        target=target, connections=options.connections, parallel=options.parallel, first=0, pid=subject.pid
    )
    total = options.connections * (2 if options.hold else 1)
    alone = connect_all(order, folder, told=lambda done: told(done, total, "connections"))
    if not options.hold:
        return Bursts(alone=alone, beside=None, held=None)
    held = subject.target(ticks.channels)
    if held.sessions:  # those behind the newcomers'
        held = msgspec.structs.replace(held, sessions=held.sessions[options.connections :])
    group = GroupOrder(target=held, connections=options.hold)
    with (
        opened(subject, [group], ticks, folder, ticks_each=1000, pause_s=3 / options.rate) as delivery,
        Child.run("The newcomers", ["relay.bench.load.browsers"], folder / "newcomers.log") as child,
    ):
        delivery.start()
        delivery.watch(within_s=WARM_UP_S, told=_say_nothing)
        delivery.window()
        delivery.watch(within_s=options.quiet_s, told=_say_nothing)
        delivery.window()
        child.say(msgspec.structs.replace(order, parallel=options.connections))
        beside = _await_all(
            child,
            what="arrived",
            kind=Arrived,
            within_s=_bound_s(options.connections),
            wait=lambda: _watch(delivery, child),
            told=lambda done: told(options.connections + done, total, "connections"),
        )
        return Bursts(alone=alone, beside=beside, held=delivery.finish())


def connect_all(order: connecting.Order, folder: Path, *, told: Callable[[int], None]) -> Connecting:
    """Let newcomers connect, who leave when all have."""
    told(0)
    with Child.run("The newcomers", ["relay.bench.load.connections"], folder / "newcomers.log") as child:
        child.say(order)
        return _await_all(
            child,
            what="connecting",
            kind=Connecting,
            within_s=_bound_s(order.connections),
            wait=lambda: wait_for_words([child], within_s=LOOK_S),
            told=told,
        )


def _watch(delivery: Delivery, child: Child) -> None:
    delivery.watch(within_s=LOOK_S, others=[child], told=_say_nothing)


def _say_nothing(_published: int) -> None:
    """Leave the ticks untold: what is shown are connections."""


def _await_all(
    child: Child,
    *,
    what: str,
    kind: type[Newcomers],
    within_s: float,
    wait: Callable[[], None],
    told: Callable[[int], None],
) -> Newcomers:
    """Wait until all newcomers have connected; `wait` waits a little."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not child.has_spoken():
            wait()
            continue
        message = child.hear(within_s=STALL_S)
        if what in message:
            return msgspec.convert(message[what], kind)
        told(message["connected"])
    raise BenchError(f"The newcomers were not all connected after {within_s:.0f} s.")
