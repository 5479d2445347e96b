"""`relay bench connect`: what a token and a connection cost, and whether subscribers feel a burst of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from relay.bench.benchmarks.benchmark import Benchmark, Parallel, Rate, Show, SideName, option
from relay.bench.benchmarks.delivery import Measured, made_up, open_bound_s, opened, server_of
from relay.bench.load.connections import Arrived, Connected, Order
from relay.bench.load.processes import LOOK_S, STALL_S, Child
from relay.bench.load.servers import RunningRelay
from relay.bench.load.subscribers import GroupOrder
from relay.bench.report import Figure, busy_note

WARM_UP_S = 1.0
TICKS, IDLE = "prices.BENCH", "prices.IDLE"
"""New connections subscribe to a channel without ticks: an idle connection is what is measured."""
QUIET, BURST = 1, 2
"""The windows of latency; the first is the warm-up."""
MAX_CONNECTIONS = 15_000
"""With the subscribers beside them, less than one address has ports for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """One side of one run: the burst alone, and the one beside subscribers (`held`) with what those got."""

    alone: Connected
    beside: Arrived | None = None
    held: Measured | None = None


_IN_BURST = "connects/s in the burst, each with a token of its own"
CONNECT_FIGURES: list[Figure[Bursts]] = [
    Figure("cpu_us_a_connect", "CPU µs a connect", "alone.cpu_us_a_connect", has_ratio=True, at_most=2.5),
    Figure("connects_per_s", "connects/s", "alone.connects_per_s", has_ratio=True),
    Figure("memory_kib_a_connection", "memory KiB a connection", "alone.memory_kib_a_connection", ",.1f", True, 1.15),
    Figure("one_by_one_p50_ms", "one after another: p50 ms", "alone.one_by_one_p50_ms", ".2f", True, 2),
    Figure("cpu_us_a_token", "CPU µs a token", "alone.cpu_us_a_token"),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Connect(Benchmark[Bursts]):
    """A burst of new connections: what do a token and a connection cost, and who feels it?

    Tokens are taken before the connections that use them, so each has a price
    of its own. Then the same beside subscribers of a channel: the latency of
    its prices before the burst and through it. The yardstick is a plain
    websockets server that checks nothing.
    """

    NAME = "connect"
    YARDSTICK = ("no checks", "a websockets server on uvloop that checks nothing")
    QUICK = {"connections": 500, "hold": 100, "quiet_s": 2}

    connections: Annotated[int, option("Connections in a burst.", 1, MAX_CONNECTIONS)] = 2000
    parallel: Parallel = 50
    hold: Annotated[int, option("Subscribers beside a second burst; 0: no second burst.", 0, 5000)] = 1000
    rate: Rate = 10
    quiet_s: Annotated[float, option("Seconds that they listen before it.", 0.1, 600, name="--quiet")] = 5

    def headline(self) -> str:
        beside = (
            f", then all at once beside {self.hold:,} subscribers of {self.rate:g} ticks/s"
            if self.hold
            else ""
        )
        return f"{self.connections:,} connections, {self.parallel} at a time{beside}"

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Bursts:
        bound_s = open_bound_s(self.connections)
        seconds = WARM_UP_S + self.quiet_s + bound_s + STALL_S
        ticks = made_up([TICKS], rate=self.rate, count=self.rate * seconds)
        total = self.connections * (2 if self.hold else 1)
        with server_of(name, folder, ticks, sessions=self.connections + self.hold) as server:
            order = Order(
                target=server.target([IDLE] if name == "relay" else []),
                connections=self.connections,
                parallel=self.parallel,
                pid=server.pid,
            )
            alone = connect_all(order, folder, show, total)
            if not self.hold:
                return Bursts(alone=alone)
            held = server.target(ticks.channels)
            # the first sessions are those of the new connections
            held = msgspec.structs.replace(held, sessions=held.sessions[self.connections :])
            groups = [GroupOrder(target=held, connections=self.hold)]
            with (
                opened(server, groups, ticks, folder) as delivery,
                Child.run("The browsers", folder, "relay.bench.load.connections") as child,
            ):
                delivery.start()
                delivery.watch(within_s=WARM_UP_S)
                delivery.window()
                delivery.watch(within_s=self.quiet_s)
                delivery.window()
                child.say(msgspec.structs.replace(order, parallel=0))
                beside = child.result(
                    Arrived,
                    within_s=bound_s,
                    show=lambda done: show(self.connections + done, total, "connections"),
                    wait=lambda: delivery.watch(within_s=LOOK_S, others=[child]),
                )
                return Bursts(alone=alone, beside=beside, held=delivery.finish())

    def figures(self) -> Sequence[Figure[Bursts]]:
        return [
            *CONNECT_FIGURES,
            _p99("quiet_p99_ms", "before", QUIET),
            _p99("burst_p99_ms", "in the burst", BURST),
            Figure("burst_in_max_ms", "in after ms, the last", "beside.max_ms"),
            Figure("burst_connects_per_s", _IN_BURST, "beside.connects_per_s", has_ratio=True, at_least=0.4),
            Figure("burst_refused", "told to wait or to try again", "beside.refused"),
            Figure("newcomers_lost", "new connections lost", "beside.lost"),
            Figure("lost", "prices: lost", "held.counted.total.lost"),
            Figure("repeated", "prices: repeated", "held.counted.total.repeated"),
        ]

    def is_whole(self, relay: Bursts) -> bool:
        return not (relay.beside and relay.beside.lost) and (relay.held is None or relay.held.is_whole)

    def side_notes(self, name: SideName, sides: Sequence[Bursts]) -> list[str]:
        held = [one.held for one in sides if one.held is not None]
        found = busy_connections_note(name, [one.alone for one in sides]) + busy_note(
            name, [one.load_cores for one in held]
        )
        refusals = sum((Counter(one.beside.refusals) for one in sides if one.beside), Counter[str]())
        if refusals:
            told = ", ".join(f"{what} ({count:,})" for what, count in refusals.most_common(4))
            found.append(f"Browsers of the {name} had to wait or to try again: {told}.")
        return found


def _p99(key: str, when: str, window: int) -> Figure[Bursts]:
    return Figure(key, f"prices p99 ms, {when}", lambda b: b.held.p99_ms(window) if b.held else None, ".1f")


def idle_order(
    running: RunningRelay, connections: int, parallel: int, *, rate: float = 0.0, source: str = ""
) -> Order:
    """Return the order to connect to a channel without ticks."""
    target = msgspec.structs.replace(running.target, channels=[IDLE], source=source)
    return Order(target=target, connections=connections, parallel=parallel, pid=running.pid, rate=rate)


def connect_all(order: Order, folder: Path, show: Show, total: int = 0) -> Connected:
    """Open new connections, and close them when all are open."""

    def shown(done: int) -> None:
        show(done, total or order.connections, "connections")

    shown(0)
    with Child.run("The new connections", folder, "relay.bench.load.connections", order=order) as child:
        return child.result(Connected, within_s=open_bound_s(order.connections), show=shown)


def busy_connections_note(name: SideName, made: Sequence[Connected]) -> list[str]:
    """Return a sentence if the program that opens connections was busy in one of a side's runs."""
    return busy_note(name, [one.load_cores for one in made], program="The new connections' program")
