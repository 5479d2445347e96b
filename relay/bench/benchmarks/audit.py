"""`relay bench audit`: what the audit log costs a connection.

The two sides differ by a few per cent, so there are more runs than elsewhere, and the cost is the median of the runs'
differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from relay.bench.benchmarks.benchmark import Benchmark, Parallel, Runs, Show, SideName, option
from relay.bench.benchmarks.connect import (
    CONNECT_FIGURES,
    MAX_CONNECTIONS,
    Bursts,
    busy_connections_note,
    connect_all,
    idle_order,
)
from relay.bench.load.servers import own_relay
from relay.bench.report import Figure, Run, median


@dataclass(frozen=True, kw_only=True)
class Audit(Benchmark[Bursts]):
    """The same connections with the audit log and without: what does the log cost one?

    The yardstick is the same relay, whose log gets no record of a connection.
    Tokens are recorded on both sides, and no delivery is on either.
    """

    NAME = "audit"
    YARDSTICK = ("no log", "the same relay, whose audit log gets no record of a connection")
    QUICK = {"connections": 2000}

    connections: Annotated[int, option("Connections of each side.", 1, MAX_CONNECTIONS)] = 5000
    parallel: Parallel = 50
    runs: Runs = 5

    def headline(self) -> str:
        return f"{self.connections:,} connections, {self.parallel} at a time"

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Bursts:
        program = "relay" if name == "relay" else "relay.bench.load.unaudited_relay"
        with own_relay(folder, sessions=self.connections, program=program) as running:
            order = idle_order(running, self.connections, self.parallel)
            return Bursts(alone=connect_all(order, folder, show))

    def figures(self) -> Sequence[Figure[Bursts]]:
        return CONNECT_FIGURES

    def side_notes(self, name: SideName, sides: Sequence[Bursts]) -> list[str]:
        return busy_connections_note(name, [one.alone for one in sides])

    def notes(self, runs: Sequence[Run[Bursts]]) -> list[str]:
        costs = [run.relay.alone.cpu_us_a_connect - run.yardstick.alone.cpu_us_a_connect for run in runs]
        spread = f", {min(costs):.0f} to {max(costs):.0f} in single runs" if len(runs) > 1 else ""
        return [f"The audit log costs a connection {median(costs):.0f} µs of CPU{spread}."]
