"""`relay bench replay`: recorded market traffic, many times as fast, to subscribers of all or some of it.

Each subscriber has two connections, as dashboards do: prices at an interval, where only the newest counts, and trades
as a stream, of which none may be missing. Real traffic comes in bursts. The question is whether anything is lost in
them, and how late it is.
"""

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.bench.benchmarks.benchmark import (
    MAX_SUBSCRIBERS,
    Benchmark,
    Interval,
    Progress,
    Seconds,
    check_interval,
    option,
)
from relay.bench.benchmarks.delivery import COST, PACE, DeliveryBenchmark, Measured, latency_figures
from relay.bench.load.servers import Server
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import MANY_TOGETHER, PRICES, TRADES, Script, Ticks, write_script
from relay.bench.report import Figure, Report, Run
from relay.core.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Replay(DeliveryBenchmark):
    """Recorded market traffic, faster: is a trade lost in its bursts, and how late is it?

    Each subscriber takes the prices of its symbols at an interval and their
    trades as a stream, from which nothing may be missing. --seconds ends it
    early. The yardstick does the same with websockets.broadcast().
    """

    NAME = "replay"
    YARDSTICK = ("broadcast()", "websockets.broadcast() of the same, on uvloop; prices at the same interval")
    QUICK = {"subscribers": 100, "seconds": 5}

    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings, plain or gzip.")]
    speed: Annotated[float, option("10 plays ten times as fast.", 0.01, 1000)] = 10
    subscribers: Annotated[int, option("Subscribers, of two connections each.", 1, MAX_SUBSCRIBERS // 2)] = (
        1000
    )
    each: Annotated[int, option("Symbols that each subscriber watches; 0: all of them.", 0)] = 0
    interval_ms: Interval = 100
    seconds: Seconds = 60
    script: Script = field(default_factory=lambda: Script(path=Path()), repr=False)
    """What the files have; `measure` reads them."""

    def check(self) -> None:
        fewest = min(len(self.script.places(kind)) for kind in self._kinds())
        if self.each > fewest:
            raise ConfigurationError(
                f"--each {self.each} is more than there are: the recording has {fewest}."
            )

    def measure(self, progress: Progress) -> Report:
        """Read the recording, and make all runs; raises what `Benchmark.measure` raises."""
        check_interval(self.interval_ms)

        def show(share: float) -> None:
            progress("reading the recording", int(share * 100), 100, "%")

        with tempfile.TemporaryDirectory(prefix="relay-bench-") as scratch:
            path = Path(scratch) / "script"
            script = write_script(self.files, path, speed=self.speed, seconds=self.seconds, show=show)
            return Benchmark.measure(replace(self, script=script), progress)

    def headline(self) -> str:
        return (
            f"{self.script.total(PRICES):,} prices and {self.script.total(TRADES):,} trades in "
            f"{self.script.seconds:.1f} s ({self.speed:g} times as fast), "
            f"{self.subscribers:,} subscribers of {self.each or 'all'} symbols"
        )

    def facts(self) -> Mapping[str, Any]:
        return {
            **DeliveryBenchmark.facts(self),
            "files": [path.name for path in self.files],
            "seconds": self.script.seconds,
            "prices": self.script.total(PRICES),
            "trades": self.script.total(TRADES),
        }

    def pace(self) -> tuple[float, float]:
        total = self.script.total()
        return total, total / self.script.seconds if self.script.seconds else 0.0

    def pause_s(self) -> float:
        return self.script.pause_s

    def make_ticks(self) -> Ticks:
        return Ticks(
            run=secrets.token_hex(4),
            channels=self.script.channels,
            script=str(self.script.path),
            streams=frozenset(self.script.places(TRADES)),
            together=MANY_TOGETHER,
        )

    def groups(self, server: Server) -> list[GroupOrder]:
        found = []
        for kind in self._kinds():
            places = self.script.places(kind)
            target = server.target(
                [self.script.channels[place] for place in places],
                endpoint=kind,
                interval_ms=self.interval_ms if kind == PRICES else 0,
            )
            found.append(
                GroupOrder(
                    target=target,
                    connections=self.subscribers,
                    each=self.each,
                    stream=kind == TRADES,
                    places=places,
                )
            )
        return found

    def figures(self) -> Sequence[Figure[Measured]]:
        found: list[Figure[Measured]] = []
        for group, kind in enumerate(self._kinds()):
            found += latency_figures(group, name=kind)
            if kind == TRADES:
                found.append(Figure("trades_lost", "trades lost", _lost_in(group)))
        return [*found, *COST, *PACE]

    def notes(self, runs: Sequence[Run[Measured]]) -> list[str]:
        found = DeliveryBenchmark.notes(self, runs)
        if self.script.malformed:
            found.append(
                f"{self.script.malformed:,} lines of the recording were not of its format and are not played."
            )
        return found

    def _kinds(self) -> list[str]:
        return [kind for kind in (TRADES, PRICES) if self.script.places(kind)]


def _lost_in(group: int) -> Callable[[Measured], float | None]:
    return lambda measured: measured.counted.groups[group].lost
