"""`relay bench publish`."""

from typing import Annotated

import typer

from relay.cli.bench.options import MAX_RATE, MAX_TICKS, AsJson, Runs
from relay.cli.bench.running import run_to_exit


def publish(
    *,
    messages: Annotated[int, typer.Option(min=1, max=MAX_TICKS, help="Messages of the SDK.")] = 200_000,
    channels: Annotated[int, typer.Option(min=1, max=1000, help="Channels that they go to in turn.")] = 10,
    rate: Annotated[
        float, typer.Option(min=0, max=MAX_RATE, help="Messages a second; 0: as fast as they are taken.")
    ] = 0,
    singles: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Then so many single requests; 0: none.")
    ] = 5000,
    runs: Runs = 3,
    as_json: AsJson = False,
) -> None:
    """One publisher of the Python SDK: how many messages a second, each once and in order?

    They go over one connection to channels of mode stream, each with a
    subscriber that misses nothing. Then single requests, one after the other,
    beside a route that does nothing.
    """
    from relay.bench.benchmarks.publish import PublishOptions, measure_publish

    options = PublishOptions(messages=messages, channels=channels, rate=rate, singles=singles, runs=runs)
    run_to_exit(lambda progress: measure_publish(options, progress), as_json=as_json)
