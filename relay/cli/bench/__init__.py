"""`relay bench`: what the relay costs on this machine, beside a yardstick measured in the same run.

The commands are made from the options of the benchmarks (`relay.bench.benchmarks`).
"""

import contextlib
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import typer

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Benchmark, Progress
from relay.bench.benchmarks.suite import BENCHMARKS, measure_all, suite
from relay.bench.report import Failed, Report, document, to_json
from relay.core.errors import ConfigurationError

Result = TypeVar("Result")

SHOWN_STEPS = 50
"""Times that the progress is shown. Each time costs CPU beside what is measured."""
CLEAR_LINE = "\r\x1b[K"
PIPE_WIDTH = 200
"""Columns of a table that goes into a pipe: no row is cut."""

app = typer.Typer(no_args_is_help=True, help="Measure the relay on this machine, beside a yardstick.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def bench() -> None:
    """Measure the relay on this machine, beside a yardstick.

    Exit code 0: measured; 1: a run failed, or something was lost; 2: the
    command itself was wrong.
    """


def _runner(kind: type[Benchmark[Any]]) -> Any:
    """Return a function whose parameters are the options of a benchmark, and which measures it."""

    def run(*, as_json: bool, **options: Any) -> None:
        benchmark = kind(**options)
        report = _measured(benchmark.measure)
        if as_json:
            typer.echo(json.dumps(report.json))
        else:
            _print_report(report)
        raise typer.Exit(0 if report.is_whole else 1)

    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(kind).parameters.items()
        if get_origin(hints[name]) is Annotated  # without it a field is no option
    ]
    parameters.sort(key=lambda parameter: parameter.name == "runs")
    as_json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    vars(run)["__signature__"] = inspect.Signature([*parameters, as_json])
    run.__doc__ = kind.__doc__
    return run


for _kind in BENCHMARKS:
    app.command(_kind.NAME)(_runner(_kind))


@app.command("all")
def everything(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Recordings for `replay`, plain or gzip.")
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="report.md", help="Write a report there, in Markdown.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small loads, one run: a minute's look.")] = False,
    runs: Annotated[
        int | None,
        typer.Option(min=1, max=99, help="Runs of which the medians are shown; 3, or 1 with --quick."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All benchmarks with their defaults, and a report to keep.

    It takes about twenty minutes; --quick a minute or two. Without recorded
    files there is no replay.
    """
    if out is not None and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        raise ConfigurationError(f"--out {out} can't be written.")
    benchmarks = suite(runs=runs or (1 if quick else 3), quick=quick, files=files or [])
    outcomes = _measured(lambda progress: measure_all(benchmarks, progress))
    if out is not None:
        out.write_text(document(outcomes, quick=quick, replayed=bool(files)), encoding="utf-8")
        typer.echo(f"{out} is written.", err=True)
    if as_json:
        typer.echo(json.dumps(to_json(outcomes)))
    else:
        for report in (one for one in outcomes if isinstance(one, Report)):
            _print_report(report)
            typer.echo()
    for failed in (one for one in outcomes if isinstance(one, Failed)):
        typer.echo(f"relay bench: {failed.bench}: {failed.sentence}", err=True)
    whole = all(isinstance(outcome, Report) and outcome.is_whole for outcome in outcomes)
    raise typer.Exit(0 if whole else 1)


def _measured(measure: Callable[[Progress], Result]) -> Result:
    """Return what `measure` does; exit if it can't be done or is interrupted."""
    try:
        with _ended_by_signals(), _progress() as progress:
            return measure(progress)
    except BenchError as error:
        typer.echo(f"relay bench: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _print_report(report: Report) -> None:
    """Print a report as a table; into a pipe it is plain text."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(("", "relay", report.yardstick, "ratio")):
        table.add_column(heading, justify="right" if place else "left")
    for row in report.rows:
        table.add_row(*row.cells())
    typer.echo(report.headline)
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
    for note in report.notes:
        typer.echo(note)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like Ctrl-C does, so that no process and no folder remains."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = [(number, signal.signal(number, end)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Show the progress on one line of a terminal. No thread draws it: that would cost CPU beside what is measured."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    shown: tuple[str, int] = ("", -1)

    def show(what: str, done: int, total: int, unit: str) -> None:
        nonlocal shown
        now = (what, done // max(1, total // SHOWN_STEPS))
        if done == 0 or now != shown:
            shown = now
            typer.echo(f"{CLEAR_LINE}{what}: {done}/{total} {unit}", nl=False, err=True)

    try:
        yield show
    finally:
        typer.echo(CLEAR_LINE, nl=False, err=True)
