"""Runs of a benchmark: the relay and the yardstick in turn, the order changing from run to run.

They never run together, and a machine that slows down in the meantime favours neither. Each side has a folder of
its own, which is gone with it.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Side = TypeVar("Side")

STALL_S = 10.0
"""Nothing at all for so long, and the run is given up."""
FILES_BESIDE = 200
"""Files that a server has open beside its connections: databases, logs, listeners, the issuer's connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[Side]):
    """Both sides of one run."""

    relay: Side
    yardstick: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far a benchmark is: `done` of `total`, counted in `unit`."""

    what: str
    done: int
    total: int
    unit: str


Progress = Callable[[Step], None]
"""Told what is going on."""

Told = Callable[[int, int, str], None]
"""Told how far one side is: done, of how many, counted in what."""

Measure = Callable[[Path, Told], Side]
"""Measures one side, in an empty folder."""


def in_turn(
    runs: int, progress: Progress, *, relay: Measure[Side], yardstick: Measure[Side]
) -> list[Run[Side]]:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
    """
    found = []
    for number in range(runs):
        sides: dict[str, Side] = {}
        for name in ("relay", "yardstick") if number % 2 == 0 else ("yardstick", "relay"):
            what = f"run {number + 1} of {runs}, {name}"

            def told(done: int, total: int, unit: str, what: str = what) -> None:
                progress(Step(what=what, done=done, total=total, unit=unit))

            with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
                sides[name] = (relay if name == "relay" else yardstick)(Path(folder), told)
        found.append(Run(relay=sides["relay"], yardstick=sides["yardstick"]))
    return found
