"""How every benchmark is run from the command line: progress while it runs, then a table."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import typer

from relay.bench import BenchError
from relay.bench.benchmarks.benchmark import Progress
from relay.bench.report import Report
from relay.cli.tables import print_table

Result = TypeVar("Result")

SHOWN_STEPS = 50
"""Times that the progress is shown. Each time costs CPU beside what is measured."""
CLEAR_LINE = "\r\x1b[K"


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
    """Print a report."""
    columns, rows = report.table()
    typer.echo(report.headline)
    print_table(columns, rows, right=columns[1:], prose="figure")
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
