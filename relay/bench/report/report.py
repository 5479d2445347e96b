"""What a benchmark found, in one form for all of them: rows for people, one object for programs, doubts in words.

Every figure is the median of the runs. A ratio is the median of the runs' own ratios: what one run's two sides
have in common (the machine, the minute) falls out of it.
"""

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from relay import __version__
from relay.bench.benchmarks.runs import Run, Side

BUSY_CORES = 0.9
"""Share of a core from which on the load generator may be what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of both sides, and their ratio where one says something; formatted, "-" where unknown."""

    name: str
    relay: str
    yardstick: str
    ratio: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure(Generic[Side]):
    """How a figure is called, where it comes from, and how it is shown."""

    key: str
    name: str
    of: Callable[[Side], float | None]
    form: str = ",.0f"
    has_ratio: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One figure of both sides for a chart, of which less is better; None where unknown."""

    name: str
    relay: float | None
    yardstick: float | None
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A benchmark's result.

    `headline` says what was measured in one line, `yardstick` heads the yardstick's column. `is_whole` is False
    when the relay lost or repeated something. `bars` are the figures for a chart; `json` is everything.
    """

    bench: str
    headline: str
    yardstick: str
    rows: Sequence[Row]
    notes: Sequence[str]
    is_whole: bool
    bars: Sequence[Bar]
    json: Mapping[str, Any]


def make_report(
    bench: str,
    figures: "Sequence[Figure[Side]]",
    runs: "Sequence[Run[Side]]",
    *,
    headline: str,
    yardstick: str,
    yardstick_is: str,
    options: Mapping[str, Any],
    notes: Sequence[str],
    is_whole: bool,
    charted: Sequence[str],
    all_of: Callable[[Side], Mapping[str, Any]],
) -> Report:
    """Put a report together. `charted` are the keys of figures for a chart, of which less is better; `all_of` gives
    everything about one side of one run that JSON can hold.
    """
    return Report(
        bench=bench,
        headline=headline,
        yardstick=yardstick,
        rows=rows(figures, runs),
        notes=notes,
        is_whole=is_whole,
        bars=[
            Bar(
                name=figure.name,
                relay=median([figure.of(run.relay) for run in runs]),
                yardstick=median([figure.of(run.yardstick) for run in runs]),
                form=figure.form,
            )
            for figure in figures
            if figure.key in charted
        ],
        json={
            "bench": bench,
            "version": __version__,
            **options,
            "runs": len(runs),
            "yardstick_is": yardstick_is,
            "machine": machine(),
            "relay": _medians(figures, [run.relay for run in runs]),
            "yardstick": _medians(figures, [run.yardstick for run in runs]),
            "ratio": {figure.key: _ratio(figure, runs) for figure in figures if figure.has_ratio},
            "notes": list(notes),
            "each": [
                {
                    "relay": {**_figures_of(figures, run.relay), **all_of(run.relay)},
                    "yardstick": {**_figures_of(figures, run.yardstick), **all_of(run.yardstick)},
                }
                for run in runs
            ],
        },
    )


def rows(figures: Sequence[Figure[Side]], runs: Sequence[Run[Side]]) -> list[Row]:
    """Return the figures for people; those that neither side has are left out."""
    found = []
    for figure in figures:
        ours = median([figure.of(run.relay) for run in runs])
        theirs = median([figure.of(run.yardstick) for run in runs])
        if ours is not None or theirs is not None:
            found.append(
                Row(
                    name=figure.name,
                    relay=_shown(ours, figure.form),
                    yardstick=_shown(theirs, figure.form),
                    ratio=_shown(_ratio(figure, runs), ".2f") if figure.has_ratio else "",
                )
            )
    return found


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of what is known, None if nothing is."""
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


def busy_note(side: str, cores: Sequence[float], *, who: str = "The load generator") -> list[str]:
    """Return a sentence if the load generator was busy in one of a side's runs."""
    if max(cores, default=0.0) <= BUSY_CORES:
        return []
    return [
        f"{who} used up to {max(cores):.0%} of a core against the {side}: rates and latencies may be its own."
    ]


def _medians(figures: Sequence[Figure[Side]], sides: Sequence[Side]) -> dict[str, float | None]:
    return {figure.key: median([figure.of(one) for one in sides]) for figure in figures}


def _figures_of(figures: Sequence[Figure[Side]], side: Side) -> dict[str, float | None]:
    return {figure.key: figure.of(side) for figure in figures}


def _ratio(figure: Figure[Side], runs: Sequence[Run[Side]]) -> float | None:
    ratios = []
    for run in runs:
        ours, theirs = figure.of(run.relay), figure.of(run.yardstick)
        if ours is not None and theirs:
            ratios.append(ours / theirs)
    return median(ratios)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
