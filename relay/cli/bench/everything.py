"""`relay bench all`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.bench.options import AsJson
from relay.cli.bench.running import measured, print_report


def everything(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Recordings for `replay`, plain or gzip.")
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="report.md", help="Write a report there, with its chart beside it as .svg."),
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
    from relay.bench.benchmarks.suite import Failed, measure_all, suite
    from relay.bench.report.document import check_writable, to_json, write_document
    from relay.bench.report.report import Report

    if out is not None:
        check_writable(out)
    recordings = files or []
    benches = suite(runs=runs or (1 if quick else 3), quick=quick, recordings=recordings)
    outcomes = measured(lambda progress: measure_all(benches, progress))
    if out is not None:
        picture = write_document(outcomes, out, quick=quick, replayed=bool(recordings))
        typer.echo(f"{out} and {picture} are written.", err=True)
    if as_json:
        typer.echo(json.dumps(to_json(outcomes)))
    else:
        for place, outcome in enumerate(outcomes):
            if place:
                typer.echo()
            if isinstance(outcome, Report):
                print_report(outcome)
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            typer.echo(f"relay bench: {outcome.bench}: {outcome.sentence}", err=True)
    whole = all(isinstance(outcome, Report) and outcome.is_whole for outcome in outcomes)
    raise typer.Exit(0 if whole else 1)
