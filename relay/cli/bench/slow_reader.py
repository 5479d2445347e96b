"""`relay bench slow-reader`."""

from typing import Annotated

import typer

from relay.cli.bench.options import MAX_SUBSCRIBERS, AsJson, Rate, Runs, Seconds
from relay.cli.bench.running import run_to_exit


def slow_reader(
    *,
    readers: Annotated[
        int, typer.Option(min=1, max=MAX_SUBSCRIBERS, help="Fast readers beside the slow one.")
    ] = 200,
    rate: Rate = 1000,
    rate_bytes: Annotated[
        int, typer.Option(min=100, max=100_000_000, help="Bytes a second that the slow reader reads.")
    ] = 20_000,
    seconds: Seconds = 20,
    alone: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds of the fast readers without it, before.")
    ] = 5,
    stopped: Annotated[
        bool, typer.Option(help="Measure a reader that stops reading altogether as well.")
    ] = True,
    stopped_within: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds in which that one should be gone.")
    ] = 40,
    runs: Runs = 3,
    as_json: AsJson = False,
) -> None:
    """A reader of 20 KB/s on a channel of 145 KB/s: how old are its prices?

    What counts is the age of the newest price that it has read, over the last
    half of the time; that it does not grow; and that the fast readers beside
    it feel nothing. Then a reader that stops reading: when is it dropped, and
    what does it cost until then?
    """
    from relay.bench.benchmarks.slow_reader import SlowReaderOptions
    from relay.bench.benchmarks.slow_reader_figures import measure_slow_reader

    options = SlowReaderOptions(
        readers=readers,
        rate=rate,
        rate_bytes=rate_bytes,
        alone_s=alone,
        seconds=seconds,
        stopped_s=stopped_within if stopped else 0.0,
        runs=runs,
    )
    run_to_exit(lambda progress: measure_slow_reader(options, progress), as_json=as_json)
