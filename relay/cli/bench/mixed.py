"""`relay bench mixed`."""

from typing import Annotated

import typer

from relay.cli.bench.options import (
    MAX_TICKS,
    AsJson,
    Interval,
    Rate,
    Runs,
    Seconds,
    Subscribers,
    check_interval,
)
from relay.cli.bench.running import run_to_exit
from relay.core.errors import ConfigurationError


def mixed(
    *,
    subscribers: Subscribers = 1000,
    each: Annotated[int, typer.Option(min=1, max=256, help="Channels that each subscribes to.")] = 20,
    channels: Annotated[int, typer.Option(min=1, max=10_000, help="Channels that there are.")] = 500,
    rate: Rate = 5000,
    seconds: Seconds = 10,
    interval: Interval = 0,
    runs: Runs = 3,
    as_json: AsJson = False,
) -> None:
    """Many subscribers, each of a few of many channels, as dashboards are.

    The defaults are 200,000 deliveries a second. The yardstick does the same
    with websockets.broadcast() to each channel's subscribers.
    """
    from relay.bench.benchmarks.mixed import MixedOptions, measure_mixed

    check_interval(interval)
    if rate * seconds > MAX_TICKS:
        raise ConfigurationError(f"--rate times --seconds is more than {MAX_TICKS:,} ticks.")
    options = MixedOptions(
        subscribers=subscribers,
        each=each,
        channels=channels,
        rate=rate,
        seconds=seconds,
        interval_ms=interval,
        runs=runs,
    )
    run_to_exit(lambda progress: measure_mixed(options, progress), as_json=as_json)
