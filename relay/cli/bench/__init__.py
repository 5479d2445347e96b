"""`relay bench`: what the relay costs on this machine, beside a yardstick measured in the same run.

The commands are made from the options of the benchmarks (`relay.bench.benchmarks`).
"""

import inspect
import json
import os
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from relay.bench.benchmarks.benchmark import Benchmark
from relay.bench.benchmarks.suite import BENCHMARKS, measure_all, suite
from relay.bench.report import Failed, Report, document, to_json
from relay.cli.bench.running import measured, print_report
from relay.core.errors import ConfigurationError

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
        report = measured(benchmark.measure)
        if as_json:
            typer.echo(json.dumps(report.json))
        else:
            print_report(report)
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
        list[Path] | None, typer.Argument(metavar="FILE", help="Recordings for `replay` and `bandwidth`.")
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

    It takes about twenty minutes; --quick a minute or two. `replay` and
    `bandwidth` need recorded files.
    """
    if out is not None and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        raise ConfigurationError(f"--out {out} can't be written.")
    benchmarks = suite(runs=runs or (1 if quick else 3), quick=quick, files=files or [])
    outcomes = measured(lambda progress: measure_all(benchmarks, progress))
    if out is not None:
        out.write_text(document(outcomes, quick=quick, replayed=bool(files)), encoding="utf-8")
        typer.echo(f"{out} is written.", err=True)
    if as_json:
        typer.echo(json.dumps(to_json(outcomes)))
    else:
        for report in (one for one in outcomes if isinstance(one, Report)):
            print_report(report)
            typer.echo()
    for failed in (one for one in outcomes if isinstance(one, Failed)):
        typer.echo(f"relay bench: {failed.bench}: {failed.sentence}", err=True)
    whole = all(isinstance(outcome, Report) and outcome.is_whole for outcome in outcomes)
    raise typer.Exit(0 if whole else 1)
