"""What every benchmark is: options, figures, and runs of the relay and the yardstick in turn.

A benchmark is a dataclass. Its fields are its options, with the bounds and the help of the command line; its docstring
is the command's help. README.md shows how to add one.
"""

import abc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal

import msgspec
import typer

from relay import __version__
from relay.bench.load.processes import require_psutil
from relay.bench.report import Figure, Report, Row, Run, Side, machine
from relay.core.channels import INTERVALS_MS
from relay.net.sockets import raise_file_limit

MAX_SUBSCRIBERS = 20_000
"""One address has about 28,000 ports to connect from."""
MAX_TICKS = 10_000_000
MAX_RATE = 1_000_000
MAX_SECONDS = 1800
"""Sessions and connections of the relay that a benchmark starts end after an hour."""


def option(text: str, least: float, most: float | None = None, *, name: str = "") -> Any:
    """Return a number's option for the command line, with its bounds; `name` is its flag if not the field's name."""
    return typer.Option(*([name] if name else []), min=least, max=most, help=text)


def _check_interval(interval_ms: int) -> int:
    """Refuse an interval that the relay does not have: it would use the next longer one, and the yardstick this one."""
    if interval_ms not in INTERVALS_MS:
        raise typer.BadParameter(f"the relay has the intervals {', '.join(map(str, INTERVALS_MS))} ms.")
    return interval_ms


Subscribers = Annotated[int, option("WebSocket connections.", 1, MAX_SUBSCRIBERS)]
Transport = Annotated[Literal["websocket", "sse"], typer.Option(help="What the subscribers read.")]
EVENTS_YARDSTICK = ("WebSockets", "the relay's WebSockets, with the same subscribers")
Rate = Annotated[float, option("Ticks a second.", 0.1, MAX_RATE)]
AnyRate = Annotated[float, option("Ticks a second; 0: as fast as they are taken.", 0, MAX_RATE)]
Seconds = Annotated[float, option("For how long.", 0.1, MAX_SECONDS)]
Interval = Annotated[
    int,
    typer.Option(
        "--interval",
        metavar="MS",
        help="Interval of the prices: 0, 50, 100, 250, 500 or 1000.",
        callback=_check_interval,
    ),
]
Parallel = Annotated[int, option("Of them on their way at the same time.", 1, 1000)]
Runs = Annotated[int, option("Runs of which the medians are shown.", 1, 99)]

SideName = Literal["relay", "yardstick"]

Show = Callable[[int, int, str], None]
"""Shows how far one side of a run is: done, of how many, counted in what."""
Progress = Callable[[str, int, int, str], None]
"""The same for a whole benchmark: what is being done, then as `Show`."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(abc.ABC, Generic[Side]):
    """A benchmark with its options; `Side` is what one side of one run gives."""

    NAME: ClassVar[str]
    YARDSTICK: ClassVar[tuple[str, str]]  # the heading of its column, and what it is in words
    QUICK: ClassVar[Mapping[str, object]]  # options of `relay bench all --quick`

    runs: Runs = 3

    def yardstick(self) -> tuple[str, str]:
        """Return the heading of the yardstick's column, and what it is in words."""
        return self.YARDSTICK

    @abc.abstractmethod
    def headline(self) -> str:
        """Return what was measured, in one line."""

    @abc.abstractmethod
    def figures(self) -> "Sequence[Figure[Side]]":
        """Return the figures of a side."""

    @abc.abstractmethod
    def measure_side(self, name: SideName, folder: Path, show: Show) -> Side:
        """Measure one side, in an empty folder; raises BenchError if that fails."""

    def is_whole(self, relay: Side) -> bool:
        """Tell whether the relay lost and repeated nothing."""
        del relay
        return True

    def check(self) -> None:
        """Raise ConfigurationError if the options contradict each other."""

    def side_notes(self, name: SideName, sides: Sequence[Side]) -> list[str]:
        """Return every doubt about the runs of one side as a sentence."""
        del name, sides
        return []

    def notes(self, runs: Sequence[Run[Side]]) -> list[str]:
        """Return other doubts about the runs, as sentences."""
        del runs
        return []

    def measure(self, progress: Progress) -> Report:
        """Make all runs.

        The relay and the yardstick never run together. Their order changes from run to run, so that a machine that
        becomes slower favours neither. Raises BenchError if a run could not be made; ConfigurationError if the options
        contradict each other, or this machine can't run the benchmark.
        """
        require_psutil()
        self.check()
        raise_file_limit()  # child processes inherit it
        runs = []
        for number in range(self.runs):
            sides: dict[SideName, Side] = {}
            order: tuple[SideName, ...] = ("relay", "yardstick")
            for name in order if number % 2 == 0 else order[::-1]:
                what = f"run {number + 1} of {self.runs}, {name}"

                def show(done: int, total: int, unit: str, what: str = what) -> None:
                    progress(what, done, total, unit)

                with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
                    sides[name] = self.measure_side(name, Path(folder), show)
            runs.append(Run(relay=sides["relay"], yardstick=sides["yardstick"]))
        return self.report(runs)

    def report(self, runs: Sequence[Run[Side]]) -> Report:
        """Put the figures of all runs together."""
        relay, yardstick = [run.relay for run in runs], [run.yardstick for run in runs]
        figures = self.figures()
        rows = [Row.of(figure, runs) for figure in figures]
        notes = self.side_notes("relay", relay) + self.side_notes("yardstick", yardstick) + self.notes(runs)
        is_whole = all(map(self.is_whole, relay))
        if not is_whole:
            notes.append("The relay LOST or repeated something: its figures say what.")

        def everything(side: Side) -> dict[str, Any]:
            return {**{figure.key: figure.of(side) for figure in figures}, **msgspec.to_builtins(side)}

        return Report(
            bench=self.NAME,
            headline=f"{self.NAME}: {self.headline()}, medians of {self.runs}",
            yardstick=self.yardstick()[0],
            rows=[row for row in rows if row.relay is not None or row.yardstick is not None],
            notes=notes,
            is_whole=is_whole,
            json={
                "bench": self.NAME,
                "version": __version__,
                "headline": self.headline(),
                **{field.name: getattr(self, field.name) for field in fields(self) if field.repr},
                "runs": len(runs),
                "yardstick_is": self.yardstick()[1],
                "machine": machine(),
                "relay": {row.figure.key: row.relay for row in rows},
                "yardstick": {row.figure.key: row.yardstick for row in rows},
                "ratio": {row.figure.key: row.ratio for row in rows if row.figure.has_ratio},
                "aim": {row.figure.key: row.aim for row in rows if row.aim},
                "notes": notes,
                "each": [
                    {side: everything(getattr(run, side)) for side in ("relay", "yardstick")} for run in runs
                ],
            },
        )
