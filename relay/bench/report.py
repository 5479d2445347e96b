"""What a benchmark found, in one form for all of them: rows for people, one object for programs, doubts in words.

Every figure is the median of the runs. A ratio is the median of the ratios of single runs: what both sides of a run
have in common (the machine, the minute) falls out of it.
"""

import datetime
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from relay import __version__

Side = TypeVar("Side")
Value = float | None

BUSY_CORES = 0.9
"""Share of a core above which the load generator may be what is measured."""

_READ = """\
Each benchmark measured the relay and a yardstick alternately, with the same load from the same code, each side alone on
the machine. Figures are medians of the runs, a ratio is the median of the ratios of single runs. Times depend on the
machine and on what else it was doing: quote the ratios."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[Side]):
    """Both sides of one run."""

    relay: Side
    yardstick: Side


@dataclass(frozen=True, slots=True)
class Figure(Generic[Side]):
    """A figure: key in JSON, name for people, where it comes from, format, and whether a ratio says something.

    `source` is a path of attributes, or a function of the side; None anywhere on the path makes the figure unknown.
    `at_most` or `at_least` is what the relay should reach: its ratio, if the figure has one, or else its own value.
    """

    key: str
    name: str
    source: str | Callable[[Side], Value]
    form: str = ",.0f"
    has_ratio: bool = False
    at_most: Value = None
    at_least: Value = None

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
    """One figure of both sides, and their ratio where it says something; None where unknown."""

    figure: Figure[Any]
    relay: Value
    yardstick: Value
    ratio: Value = None

    @classmethod
    def of(cls, figure: Figure[Side], runs: Sequence[Run[Side]]) -> Self:
        """Return a figure's medians of all runs."""
        pairs = [(figure.of(run.relay), figure.of(run.yardstick)) for run in runs]
        ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
        return cls(
            figure=figure,
            relay=median([ours for ours, _ in pairs]),
            yardstick=median([theirs for _, theirs in pairs]),
            ratio=median(ratios) if figure.has_ratio else None,
        )

    @property
    def aim(self) -> str:
        """What the relay should reach, in words, with "missed" if it did not; "" if nothing is aimed at."""
        figure = self.figure
        found = self.ratio if figure.has_ratio else self.relay
        for words, limit, sign in (("at most", figure.at_most, 1), ("at least", figure.at_least, -1)):
            if limit is not None:
                is_missed = found is not None and (found - limit) * sign > 0
                return f"{words} {limit:g}" + (", missed" if is_missed else "")
        return ""

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the row as text."""
        figure = self.figure
        ratio = _shown(self.ratio, ".2f") if figure.has_ratio else ""
        shown = _shown(self.relay, figure.form), _shown(self.yardstick, figure.form)
        return (figure.name, *shown, ratio, self.aim)


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

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Return the headings and the rows as text. Without aims there is no column for them."""
        columns = ("figure", "relay", self.yardstick, "ratio", "aim")
        width = len(columns) if any(row.aim for row in self.rows) else len(columns) - 1
        return columns[:width], [row.cells()[:width] for row in self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A benchmark that could not be made, and the reason."""

    bench: str
    sentence: str


Outcome = Report | Failed


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


def document(outcomes: Sequence[Outcome], *, quick: bool, replayed: bool) -> str:
    """Return all outcomes as Markdown. `replayed` is False when there was no recording to play."""
    facts = machine()
    load = ", ".join(map(str, facts["load_average"]))
    now = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        "# What scoped-relay costs here",
        f"scoped-relay {__version__}, {now}. {facts['cores']} cores, {facts['system']}, Python {facts['python']}; "
        f"load average at the end {load}, with the benchmark itself in it.",
        _READ,
    ]
    if quick:
        parts.append("**This was a quick look**: small loads, one run each. Quote none of it.")
    for one in outcomes:
        text = _table(one) if isinstance(one, Report) else f"**Failed.** {one.sentence}"
        parts.append(f"## {one.bench}\n\n{text}")
    if not replayed:
        parts.append("## replay\n\nNot measured: no recorded files were given to `relay bench all`.")
    return "\n\n".join(parts) + "\n"


def to_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything as one object; what failed has its sentence in `error`."""
    return {
        "bench": "all",
        "version": __version__,
        "machine": machine(),
        "benches": [
            dict(one.json) if isinstance(one, Report) else {"bench": one.bench, "error": one.sentence}
            for one in outcomes
        ],
    }


def _table(report: Report) -> str:
    columns, rows = report.table()
    lines = [
        report.headline.partition(": ")[2] + ".",
        "",
        *[f"| {' | '.join(cells)} |" for cells in (columns, ["---"] + ["--:"] * (len(columns) - 1), *rows)],
    ]
    if report.notes:
        lines += ["", *[f"- {note}" for note in report.notes]]
    return "\n".join(lines)


def _shown(value: Value, form: str) -> str:
    return "-" if value is None else format(value, form)
