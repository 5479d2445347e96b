"""`relay bench fanout`."""

from typing import Annotated

import typer

from relay.cli.bench import given
from relay.cli.bench.options import MAX_RATE, MAX_TICKS, AsJson, Runs, Subscribers
from relay.cli.bench.running import run_to_exit


def fanout(
    *,
    subscribers: Subscribers = 1000,
    rate: Annotated[
        float, typer.Option(min=0, max=MAX_RATE, help="Ticks a second; 0: as fast as it goes.")
    ] = 100,
    ticks: Annotated[int, typer.Option(min=1, max=MAX_TICKS, help="Ticks in all.")] = 500,
    runs: Runs = 3,
    as_json: AsJson = False,
    url: given.Url = "",
    publish_url: given.PublishUrl = "http://127.0.0.1:8002",
    publish_key: given.PublishKey = "",
    sessions: given.Sessions = "",
    stream_url: given.StreamUrl = "",
    channel: Annotated[
        str, typer.Option(help="The channel to publish to; with --url one that nobody watches.")
    ] = "prices.BENCH",
    pid: given.Pid = None,
) -> None:
    """Fan ticks of 150 bytes out to many subscribers; what does one delivery cost?

    Starts a relay of its own, opens each connection with a token of its own,
    publishes over HTTP, and measures websockets.broadcast() under the same
    load in turn. Times depend on the machine: quote the ratios.

    With --url it measures a relay that runs already. It then needs --sessions
    and --publish-key, and limits that let so many in: tokens_per_address,
    tokens_per_session and connections_per_session. TLS is not measured, so
    name the relay's own listeners and not a proxy's.
    """
    from relay.bench.benchmarks.fanout import FanoutOptions, measure_fanout
    from relay.core.patterns import check_channel

    options = FanoutOptions(
        subscribers=subscribers,
        rate=rate,
        ticks=ticks,
        runs=runs,
        channel=check_channel(channel),
        given=given.given_relay(url, publish_url, publish_key, sessions, stream_url, pid),
    )
    run_to_exit(lambda progress: measure_fanout(options, progress), as_json=as_json)
