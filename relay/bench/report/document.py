"""A report of all benchmarks to keep: Markdown with tables, the machine, and a chart beside it."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from relay import __version__
from relay.bench.report.chart import chart
from relay.bench.report.report import Failed, Outcome, Report, machine
from relay.core.errors import ConfigurationError

_READ = """\
Each benchmark measured the relay and a yardstick alternately, with the same load from the same code, each side alone on
the machine. Figures are medians of the runs, a ratio is the median of the ratios of single runs. Times depend on the
machine and on what else it was doing: quote the ratios."""


def check_writable(path: Path) -> None:
    """Check before the first run that the report can be written. Raises ConfigurationError if it can't be."""
    if path.suffix == ".svg":
        raise ConfigurationError(f"--out {path}: the report is Markdown; its chart goes beside it, as .svg.")
    is_new = not path.exists()
    try:
        with path.open("a", encoding="utf-8"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise ConfigurationError(f"--out {path} can't be written: {error.strerror}.") from None


def write_document(outcomes: Sequence[Outcome], path: Path, *, quick: bool, replayed: bool) -> Path:
    """Write the report to `path` and its chart beside it; returns the chart's path."""
    picture = path.with_suffix(".svg")
    reports = [outcome for outcome in outcomes if isinstance(outcome, Report)]
    picture.write_text(chart(reports), encoding="utf-8")
    path.write_text(document(outcomes, picture.name, quick=quick, replayed=replayed), encoding="utf-8")
    return picture


def document(outcomes: Sequence[Outcome], picture: str, *, quick: bool, replayed: bool) -> str:
    """Return the report as Markdown. `replayed` is False when there was no recording to play."""
    facts = machine()
    load = ", ".join(map(str, facts["load_average"]))
    parts = [
        "# What scoped-relay costs here",
        f"scoped-relay {__version__}, {_today()}. {facts['cores']} cores, {facts['system']}, Python {facts['python']}; "
        f"load average at the end {load}, with the benchmark itself in it.",
        _READ,
    ]
    if quick:
        parts.append("**This was a quick look**: small loads, one run each. Quote none of it.")
    parts.append(f"![The figures below as bars]({quote(picture)})")
    parts += [_failed(outcome) if isinstance(outcome, Failed) else _table(outcome) for outcome in outcomes]
    if not replayed:
        parts.append("## replay\n\nNot measured: no recorded files were given to `relay bench all`.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def to_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything as one object; what failed has its sentence in `error`."""
    return {
        "bench": "all",
        "version": __version__,
        "machine": machine(),
        "benches": [
            {"bench": outcome.bench, "error": outcome.sentence}
            if isinstance(outcome, Failed)
            else dict(outcome.json)
            for outcome in outcomes
        ],
    }


def _table(report: Report) -> str:
    lines = [
        f"## {report.bench}",
        "",
        report.headline.partition(": ")[2] + ".",
        "",
        f"| | relay | {report.yardstick} | ratio |",
        "|---|--:|--:|--:|",
    ]
    lines += [f"| {' | '.join(row.cells())} |" for row in report.rows]
    if report.notes:
        lines += ["", *[f"- {note}" for note in report.notes]]
    return "\n".join(lines)


def _failed(failed: Failed) -> str:
    return f"## {failed.bench}\n\n**Failed.** {failed.sentence}"


def _today() -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
