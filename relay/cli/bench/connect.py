"""`relay bench connect`."""

from typing import Annotated

import typer

from relay.cli.bench.options import AsJson, Rate, Runs
from relay.cli.bench.running import run_to_exit

MAX_CONNECTIONS = 15_000
"""With the subscribers beside them, below what one address has ports for."""


def connect(
    *,
    connections: Annotated[
        int, typer.Option(min=1, max=MAX_CONNECTIONS, help="Connections in a burst.")
    ] = 2000,
    parallel: Annotated[
        int, typer.Option(min=1, max=500, help="Of them on their way at the same time.")
    ] = 50,
    hold: Annotated[
        int,
        typer.Option(
            min=0, max=5000, help="Subscribers that listen during a second burst; 0: no second burst."
        ),
    ] = 1000,
    rate: Rate = 10,
    quiet: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds that they listen before it.")] = 5,
    runs: Runs = 3,
    as_json: AsJson = False,
) -> None:
    """A burst of newcomers: what do a token and a connection cost, and who feels it?

    Tokens are taken before the connections that use them, so each has a price
    of its own. Then the same beside subscribers of a channel: the latency of
    its prices before the burst and through it. The yardstick is a plain
    websockets server that checks nothing.
    """
    from relay.bench.benchmarks.connect import ConnectOptions
    from relay.bench.benchmarks.connect_figures import measure_connect

    options = ConnectOptions(
        connections=connections, parallel=parallel, hold=hold, rate=rate, quiet_s=quiet, runs=runs
    )
    run_to_exit(lambda progress: measure_connect(options, progress), as_json=as_json)
