"""What a benchmark found, in one form for all of them: rows for people, one object for programs, doubts in words.

Every figure is the median of the runs. A ratio is the median of the ratios of single runs: what both sides of a run
have in common (the machine, the minute) falls out of it.
"""

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from relay import __version__

Side = TypeVar("Side")
Value = float | None

BUSY_CORES = 0.9
"""Share of a core above which the load generator may be what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[Side]):
    """Both sides of one run."""

    relay: Side
    yardstick: Side


@dataclass(frozen=True, slots=True)
class Figure(Generic[Side]):
    """A figure: key in JSON, name for people, where it comes from, format, and whether a ratio says something.

    `source` is a path of attributes, or a function of the side; None anywhere on the path makes the figure unknown.
    """

    key: str
    name: str
    source: str | Callable[[Side], Value]
    form: str = ",.0f"
    has_ratio: bool = False

    def of(self, side: Side) -> Value:
        """Return the figure of one side, None if it is unknown."""
        if not isinstance(self.source, str):
            return self.source(side)
        found: Any = side
        for name in self.source.split("."):
            found = getattr(found, name, None)
        value: Value = found
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of both sides, and their ratio where it says something; None where unknown.

    Less is better in a figure that is `charted`.
    """

    name: str
    relay: Value
    yardstick: Value
    ratio: Value = None
    form: str = ",.0f"
    has_ratio: bool = False
    charted: bool = False

    def cells(self) -> tuple[str, str, str, str]:
        """Return the row as text."""
        ratio = shown(self.ratio, ".2f") if self.has_ratio else ""
        return self.name, shown(self.relay, self.form), shown(self.yardstick, self.form), ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a benchmark. `is_whole` is False if the relay lost or repeated something; `json` is everything."""

    bench: str
    headline: str
    yardstick: str
    rows: Sequence[Row]
    notes: Sequence[str]
    is_whole: bool
    json: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A benchmark that could not be made, and the reason."""

    bench: str
    sentence: str


Outcome = Report | Failed


def make_report(
    bench: str,
    figures: "Sequence[Figure[Side]]",
    runs: "Sequence[Run[Side]]",
    *,
    headline: str,
    yardstick: tuple[str, str],
    options: Mapping[str, Any],
    notes: Sequence[str],
    is_whole: bool,
    charted: Sequence[str],
) -> Report:
    """Put a report together.

    `yardstick` is the heading of its column, and what it is in words. `charted` are the keys of figures for the chart,
    where less is better.
    """
    sides = {name: [getattr(run, name) for run in runs] for name in ("relay", "yardstick")}
    rows = {
        figure.key: Row(
            name=figure.name,
            relay=median([figure.of(one) for one in sides["relay"]]),
            yardstick=median([figure.of(one) for one in sides["yardstick"]]),
            ratio=_ratio(figure, runs),
            form=figure.form,
            has_ratio=figure.has_ratio,
            charted=figure.key in charted,
        )
        for figure in figures
    }
    return Report(
        bench=bench,
        headline=headline,
        yardstick=yardstick[0],
        rows=[row for row in rows.values() if row.relay is not None or row.yardstick is not None],
        notes=notes,
        is_whole=is_whole,
        json={
            "bench": bench,
            "version": __version__,
            **options,
            "runs": len(runs),
            "yardstick_is": yardstick[1],
            "machine": machine(),
            "relay": {key: row.relay for key, row in rows.items()},
            "yardstick": {key: row.yardstick for key, row in rows.items()},
            "ratio": {key: row.ratio for key, row in rows.items() if row.has_ratio},
            "notes": list(notes),
            "each": [
                {name: _everything(figures, ones[place]) for name, ones in sides.items()}
                for place in range(len(runs))
            ],
        },
    )


def median(values: Sequence[Value]) -> Value:
    """Return the median of the known values, None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def machine() -> dict[str, Any]:
    """Return the circumstances of a measurement."""
    return {
        "cores": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.system(),
    }


def busy_note(side: str, cores: Sequence[float], *, program: str = "The load generator") -> list[str]:
    """Return a sentence if a program of the load was busy in one of a side's runs."""
    if max(cores, default=0.0) <= BUSY_CORES:
        return []
    return [
        f"{program} used up to {max(cores):.0%} of a core against the {side}: rates and latencies may be its own."
    ]


def shown(value: Value, form: str, unknown: str = "-") -> str:
    """Return a value as text."""
    return unknown if value is None else format(value, form)


def _ratio(figure: Figure[Side], runs: Sequence[Run[Side]]) -> Value:
    pairs = [(figure.of(run.relay), figure.of(run.yardstick)) for run in runs]
    return median([ours / theirs for ours, theirs in pairs if ours is not None and theirs])


def _everything(figures: Sequence[Figure[Side]], side: Side) -> dict[str, Any]:
    return {**{figure.key: figure.of(side) for figure in figures}, **msgspec.to_builtins(side)}
