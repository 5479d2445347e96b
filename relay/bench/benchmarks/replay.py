"""`relay bench replay`: recorded market traffic, many times as fast, to subscribers of all or some of it."""

import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from relay.bench.benchmarks.benchmark import MAX_SUBSCRIBERS, Benchmark, Interval, Progress, Seconds, option
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

    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Recordings, plain or gzip.")] = field(
        repr=False
    )
    speed: Annotated[float, option("10 plays ten times as fast.", 0.01, 1000)] = 10
    subscribers: Annotated[int, option("Each has two connections.", 1, MAX_SUBSCRIBERS // 2)] = 1000
    each: Annotated[int, option("Symbols that each subscriber watches; 0: all of them.", 0)] = 0
    interval_ms: Interval = 100
    seconds: Seconds = 60
    parts: Annotated[int, option("Parts of the recording that are played at once.", 1, 100)] = 1
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

        def show(share: float) -> None:
            progress("reading the recording", int(share * 100), 100, "%")

        with tempfile.TemporaryDirectory(prefix="relay-bench-") as scratch:
            path = Path(scratch) / "script"
            script = write_script(
                self.files, path, speed=self.speed, seconds=self.seconds, parts=self.parts, show=show
            )
            return Benchmark.measure(replace(self, script=script), progress)

    def headline(self) -> str:
        return (
            f"{self.script.total(PRICES):,} prices and {self.script.total(TRADES):,} trades in "
            f"{self.script.seconds:.1f} s ({self.speed:g} times as fast), "
            f"{self.subscribers:,} subscribers of {self.each or 'all'} symbols"
        )

    def make_ticks(self) -> Ticks:
        script = self.script
        return Ticks(
            run=secrets.token_hex(4),
            channels=script.channels,
            count=script.total(),
            rate=script.total() / script.seconds if script.seconds else 0.0,
            script=str(script.path),
            streams=frozenset(script.places(TRADES)),
            together=MANY_TOGETHER,
            pause_s=script.pause_s,
        )

    def groups(self, server: Server) -> list[GroupOrder]:
        return [
            GroupOrder(
                target=server.target(
                    [name for name in self.script.channels if name.startswith(f"{kind}.")],
                    endpoint=kind,
                    interval_ms=self.interval_ms if kind == PRICES else 0,
                ),
                connections=self.subscribers,
                each=self.each,
                stream=kind == TRADES,
            )
            for kind in self._kinds()
        ]

    def figures(self) -> Sequence[Figure[Measured]]:
        kinds = enumerate(self._kinds())
        return [*(one for group, kind in kinds for one in latency_figures(group, name=kind)), *COST, *PACE]

    def notes(self, runs: Sequence[Run[Measured]]) -> list[str]:
        del runs
        malformed = self.script.malformed
        return (
            [f"{malformed:,} lines of the recording were not of its format and are not played."]
            if malformed
            else []
        )

    def _kinds(self) -> list[str]:
        return [kind for kind in (TRADES, PRICES) if self.script.places(kind)]
