"""`relay bench replay`."""

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.bench.options import (
    MAX_SUBSCRIBERS,
    AsJson,
    Interval,
    Runs,
    Seconds,
    check_interval,
)
from relay.cli.bench.running import run_to_exit


def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings, plain or gzip.")],
    *,
    speed: Annotated[float, typer.Option(min=0.01, max=1000, help="10 plays ten times as fast.")] = 10,
    subscribers: Annotated[
        int,
        typer.Option(min=1, max=MAX_SUBSCRIBERS // 2, help="Subscribers, of two connections each."),
    ] = 1000,
    each: Annotated[
        int, typer.Option(min=0, help="Symbols that each subscriber watches; 0: all of them.")
    ] = 0,
    interval: Interval = 100,
    seconds: Seconds = 60,
    runs: Runs = 3,
    as_json: AsJson = False,
) -> None:
    """Recorded market traffic, faster: is a trade lost in its bursts, and how late is it?

    Each subscriber takes the prices of its symbols with an interval and their trades as
    a stream, from which nothing may be missing. --seconds ends it early. The yardstick does
    the same with websockets.broadcast().
    """
    from relay.bench.benchmarks.replay import ReplayOptions, measure_replay

    check_interval(interval)
    options = ReplayOptions(
        files=files,
        speed=speed,
        seconds=seconds,
        subscribers=subscribers,
        each=each,
        interval_ms=interval,
        runs=runs,
    )
    run_to_exit(lambda progress: measure_replay(options, progress), as_json=as_json)
