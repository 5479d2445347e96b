"""`relay bench nodes`: what an engine costs a node, and what a second worker gives.

The relay's side is a node on an engine, and then two workers on it. The yardstick is a relay of one process: without an
engine where the engine is measured, and on an engine of its own where the workers are.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated

from relay.bench.benchmarks.benchmark import MAX_TICKS, Benchmark, Parallel, Show, SideName, option
from relay.bench.benchmarks.connect import MAX_CONNECTIONS, busy_connections_note, connect_all, idle_order
from relay.bench.benchmarks.delivery import Measured, deliver, made_up, open_bound_s, opened
from relay.bench.benchmarks.publish import publish_with_sdk
from relay.bench.load.connections import Connected
from relay.bench.load.engine_server import Engine, EngineOrder, EnginePath, own_engine, require_engine
from relay.bench.load.processes import Child, cpu_of, memory_of
from relay.bench.load.servers import RunningRelay, own_relay, publishing_to
from relay.bench.load.subscribers import GroupOrder
from relay.bench.report import Figure, Row, Run, busy_note

WORKERS = 2
FANNED = "prices.BENCH"
PACED_TICKS_PER_S = 30
"""Ticks a second at which one worker and two make as many writes, and so does the load generator keep up."""
CONNECTS_PER_S, TOGETHER = 400, 20
"""New connections a second and process, and how many come at once. It is a third of what a process can do, so nobody
waits for a core; and each process claims and records as many together."""
READERS, TICKS_PER_S = 10, 1000
"""Readers of a channel with so many ticks a second, whose latency is compared."""
EACH_ADDRESS = 9000
"""Idle connections of one program and one address: open files and ports are bounded. Each has its own session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneNode:
    """What one node did: publishing with the SDK at a rate, ticks whose latency counts, and connections."""

    published: Measured
    own_cores: float
    engine_us_a_message: float | None
    ticked: Measured
    connected: Connected


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """What so many processes did: ticks and connections at a pace and as fast as they go, and idle ones."""

    processes: int
    paced: Measured
    fanned: Measured
    connected: Connected
    rushed: Connected
    idle: int | None = None
    idle_kib: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """One side of one run. Only the relay's side has the path to the engine."""

    node: OneNode
    two: Workers
    path: EnginePath | None = None


ADDED_MS = {"p50_ms": 2, "p99_ms": 15}
"""Latency that the engine may add."""


@dataclass(frozen=True, kw_only=True)
class Nodes(Benchmark[Several]):
    """A node on Redis or Valkey beside one alone, and two workers beside one.

    It starts a redis-server or valkey-server of its own. The node publishes
    what the Python SDK sends, takes connections, and delivers ticks; then its
    path to the engine alone: messages, claims, and all channels after a gap.
    Two workers get ticks and connections at a pace and as fast as they go,
    and idle ones.
    """

    NAME = "nodes"
    YARDSTICK = ("one process", "one process: without an engine, and on one of its own beside the workers")
    QUICK = {
        "messages": 20_000, "path_messages": 10_000, "connections": 500, "seconds": 2, "subscribers": 200,
        "ticks": 2000, "resync": 5000, "idle": 500,
    }  # fmt: skip

    messages: Annotated[int, option("Messages of the SDK.", 1, MAX_TICKS)] = 200_000
    rate: Annotated[float, option("Of them a second.", 1, 1_000_000)] = 20_000
    path_messages: Annotated[int, option("Over the path to the engine alone.", 1, MAX_TICKS)] = 100_000
    claims: Annotated[int, option("Tokens that are used up at once.", 1, 1000)] = 256
    resync: Annotated[int, option("Channels after a gap.", 1, 100_000)] = 20_000
    seconds: Annotated[float, option("How long ticks are timed.", 0.1, 600)] = 10
    connections: Annotated[int, option("New connections.", 1, MAX_CONNECTIONS)] = 2000
    parallel: Parallel = 50
    subscribers: Annotated[int, option("Subscribers of ticks as fast as they go.", 1, 5000)] = 1000
    ticks: Annotated[int, option("Such ticks.", 1, MAX_TICKS)] = 20_000
    idle: Annotated[int, option("Idle connections over the workers; 0: none.", 0, 10 * EACH_ADDRESS)] = 10_000

    def check(self) -> None:
        require_engine()

    def headline(self) -> str:
        return (
            f"{self.messages:,} messages at {self.rate:,.0f} a second, {self.connections:,} connections, "
            f"{WORKERS} workers with {self.subscribers:,} subscribers"
        )

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Several:
        is_relay, idle = name == "relay", min(self.idle, EACH_ADDRESS)
        sessions = max(self.connections, self.subscribers, READERS, idle)
        with own_engine(folder / "engine") as engine:
            alone = engine if is_relay else None
            with own_relay(folder / "one", sessions=sessions, engine=alone) as running:
                node = self._node(running, alone, folder, show)
            path, workers = (self._path(engine, folder, show), WORKERS) if is_relay else (None, 0)
            with own_relay(folder / "several", sessions=sessions, engine=engine, workers=workers) as running:
                two = self._workers(running, folder, show, workers)
                return Several(node=node, path=path, two=two)

    def _node(self, running: RunningRelay, engine: Engine | None, folder: Path, show: Show) -> OneNode:
        load = partial(publish_with_sdk, running, folder, show)
        cpu_s = cpu_of(engine.pid) if engine else 0.0
        published, own_cores = load(READERS, self.rate, self.messages)
        cpu_s = cpu_of(engine.pid) - cpu_s if engine else 0.0
        ticked, _ = load(1, TICKS_PER_S, TICKS_PER_S * self.seconds, READERS)
        return OneNode(
            published=published,
            own_cores=own_cores,
            engine_us_a_message=cpu_s / published.published * 1e6 if engine else None,
            ticked=ticked,
            connected=connect_all(idle_order(running, self.connections, self.parallel), folder, show),
        )

    def _path(self, engine: Engine, folder: Path, show: Show) -> EnginePath:
        order = EngineOrder(
            url=engine.url,
            pid=engine.pid,
            messages=self.path_messages,
            claims=self.claims,
            resync=self.resync,
        )
        with Child.run("The engine's path", folder, "relay.bench.load.engine_path", order=order) as child:
            within_s = open_bound_s(self.path_messages // 100 + self.resync // 100)
            return child.result(
                EnginePath, within_s=within_s, show=lambda done: show(done, self.path_messages, "messages")
            )

    def _workers(self, running: RunningRelay, folder: Path, show: Show, workers: int) -> Workers:
        # first, because later connections use the memory of earlier ones
        idle_kib = self._hold(running, folder, show) if workers and self.idle else None
        processes = workers or 1
        paced = idle_order(running, self.connections, TOGETHER * processes, rate=CONNECTS_PER_S * processes)
        rushed = idle_order(running, self.connections, self.parallel * processes)
        return Workers(
            processes=processes,
            paced=self._fan(running, folder, show, PACED_TICKS_PER_S, PACED_TICKS_PER_S * self.seconds),
            fanned=self._fan(running, folder, show, 0, self.ticks),
            connected=connect_all(paced, folder, show),
            rushed=connect_all(rushed, folder, show),
            idle=self.idle if idle_kib is not None else None,
            idle_kib=idle_kib,
        )

    def _fan(self, running: RunningRelay, folder: Path, show: Show, rate: float, count: float) -> Measured:
        ticks = made_up([FANNED], rate=rate, count=count)
        with publishing_to(running, folder, ticks) as server:
            groups = [GroupOrder(target=server.target(ticks.channels), connections=self.subscribers)]
            with opened(server, groups, ticks, folder) as delivery:
                return deliver(delivery, ticks, show)

    def _hold(self, running: RunningRelay, folder: Path, show: Show) -> float:
        """Open idle connections, from an address and by a program for each `EACH_ADDRESS` of them. Returns KiB."""
        before = memory_of(running.pid)
        with contextlib.ExitStack() as stack:
            for place, first in enumerate(range(0, self.idle, EACH_ADDRESS)):
                count = min(EACH_ADDRESS, self.idle - first)
                order = idle_order(running, count, self.parallel, source=f"127.0.0.{2 + place}")
                child = Child.run("The idle ones", folder, "relay.bench.load.connections", order=order)

                def shown(done: int, first: int = first) -> None:
                    show(first + done, self.idle, "idle connections")

                stack.enter_context(child).result(Connected, within_s=open_bound_s(count), show=shown)
            return (memory_of(running.pid) - before) / self.idle / 1024

    def figures(self) -> Sequence[Figure[Several]]:
        return [
            Figure("messages_per_s", "SDK: acknowledged/s", "node.published.published_per_s", at_least=self.rate),
            Figure("node_us_a_message", "SDK: CPU µs a message", _node_us, ",.1f", has_ratio=True),
            Figure("engine_us_a_message", "engine: CPU µs a message", "node.engine_us_a_message", ".1f", at_most=25),
            Figure("script_ms", "engine: longest script, CPU ms", "path.script_ms", ".1f", at_most=5),
            Figure("lost", "SDK: lost", "node.published.counted.total.lost"),
            Figure("repeated", "SDK: repeated", "node.published.counted.total.repeated"),
            Figure("disordered", "SDK: out of order", "node.published.counted.total.disordered"),
            Figure("p50_ms", "latency p50 ms", lambda one: getattr(one.node.ticked.latency(), "p50_ms", None), ".2f"),
            Figure("p99_ms", "latency p99 ms", lambda one: one.node.ticked.p99_ms(), ".2f"),
            Figure("cpu_us_a_connect", "CPU µs a connect", "node.connected.cpu_us_a_connect", ",.0f", True, 1.15),
            Figure("connects_per_s", "connects/s", "node.connected.connects_per_s", has_ratio=True),
            Figure("path_us_a_message", "path: CPU µs a message", "path.cpu_us_a_message", ".1f", at_most=30),
            Figure("claims_p99_ms", "claims at once: p99 ms", "path.claims_p99_ms", ".1f", at_most=15),
            Figure("cpu_us_a_claim", "claims at once: CPU µs", "path.cpu_us_a_claim"),
            Figure("resync_s", "resync s", "path.resync_s", ".3f", at_most=1),
            Figure("two_us_a_delivery", "workers: µs a delivery", "two.paced.cpu_us_a_delivery", ".2f", True, 1.15),
            Figure("two_a_read", "workers: deliveries a read", "two.paced.deliveries_a_read", ".2f", has_ratio=True),
            _capacity("two_deliveries_cpu", "deliveries", "paced.cpu_us_a_delivery"),
            Figure("two_us_a_connect", "workers: µs a connect", "two.connected.cpu_us_a_connect", ",.0f", True, 1.15),
            _capacity("two_connects_cpu", "connects", "connected.cpu_us_a_connect"),
            Figure("flat_deliveries_per_s", "flat out: deliveries/s", "two.fanned.deliveries_per_s", has_ratio=True),
            Figure("flat_us_a_delivery", "flat out: µs a delivery", "two.fanned.cpu_us_a_delivery", ".2f", True),
            Figure("flat_a_read", "flat out: deliveries a read", "two.fanned.deliveries_a_read", ".1f", True),
            Figure("flat_connects_per_s", "flat out: connects/s", "two.rushed.connects_per_s", has_ratio=True),
            Figure("flat_us_a_connect", "flat out: µs a connect", "two.rushed.cpu_us_a_connect", ",.0f", True),
            Figure("idle", "workers: idle connections", "two.idle"),
            Figure("idle_kib", "workers: KiB an idle connection", "two.idle_kib", ",.1f"),
        ]  # fmt: skip

    def is_whole(self, relay: Several) -> bool:
        measured = (relay.node.published, relay.node.ticked, relay.two.paced, relay.two.fanned)
        return all(one.is_whole for one in measured) and not relay.node.published.counted.total.disordered

    def side_notes(self, name: SideName, sides: Sequence[Several]) -> list[str]:
        found = busy_note(name, [one.node.own_cores for one in sides], program="The SDK's publisher")
        found += busy_note(name, [one.two.fanned.load_cores for one in sides])
        return found + busy_connections_note(name, [one.two.rushed for one in sides])

    def notes(self, runs: Sequence[Run[Several]]) -> list[str]:
        found = []
        for row in [Row.of(figure, runs) for figure in self.figures()]:
            aim_ms, name = ADDED_MS.get(row.figure.key), row.figure.name
            if aim_ms is not None and row.relay is not None and row.yardstick is not None:
                added = row.relay - row.yardstick
                end = ", missed." if added > aim_ms else "."
                found.append(f"The engine adds {added:.2f} ms to the {name}; the aim is {aim_ms}{end}")
        return found


def _capacity(key: str, unit: str, cost: str) -> Figure[Several]:
    """Return how many a second the processes make if each has a core: the load generator uses none of it."""

    def of(side: Several) -> float | None:
        cpu_us = attrgetter(cost)(side.two)
        return side.two.processes * 1e6 / cpu_us if cpu_us else None

    return Figure(key, f"workers: {unit}/s, load not counted", of, has_ratio=True, at_least=1.7)


def _node_us(side: Several) -> float:
    return side.node.published.server_cpu_s / side.node.published.published * 1e6
