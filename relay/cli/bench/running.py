"""How every benchmark is run from the command line: progress while it runs, then a table or text."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import typer

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Progress, Step
from relay.bench.report.report import Report

Result = TypeVar("Result")

SHOWN_STEPS = 50
"""Times that a bar is drawn. Each drawing costs CPU beside what is measured."""


def measured(measure: Callable[[Progress], Result]) -> Result:
    """Return what `measure` does; exit if it can't be done or is interrupted."""
    try:
        with _ended_by_signals(), _progress() as progress:
            return measure(progress)
    except BenchError as error:
        typer.echo(f"relay bench: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def print_report(report: Report) -> None:
    """Print a report: a table on a terminal, aligned text into a pipe."""
    headings = ("", "relay", report.yardstick, "ratio")
    lines = [row.cells() for row in report.rows]
    if sys.stdout.isatty():
        _print_table(report.headline, headings, lines)
    else:
        typer.echo(report.headline)
        widths = [max(len(line[column]) for line in [headings, *lines]) for column in range(4)]
        for line in (headings, *lines):
            name, *figures = line
            cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
            typer.echo("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    for note in report.notes:
        typer.echo(note)


def _print_table(title: str, headings: tuple[str, ...], lines: list[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(title, style="italic", highlight=False)  # as the table's own title it would be as narrow
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for line in lines:
        table.add_row(*line)
    console.print(table)


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
    """Show the progress on a terminal. No thread draws it: that would cost CPU beside what is measured."""
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=1, unit="")
        shown: tuple[str, int] = ("", -1)

        def show(step: Step) -> None:
            nonlocal shown
            now = (step.what, step.done // max(1, step.total // SHOWN_STEPS))
            if step.done == 0 or now != shown:
                shown = now
                bar.update(task, description=step.what, completed=step.done, total=step.total, unit=step.unit)
                bar.refresh()

        yield show
