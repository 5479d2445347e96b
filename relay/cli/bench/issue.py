"""`relay bench issue`."""

from typing import Annotated

import typer

from relay.cli.bench.options import AsJson, Runs
from relay.cli.bench.running import run_to_exit

MAX_REQUESTS = 200_000
"""Each has a session of its own, which is signed beforehand."""
MAX_AT_ONCE = 20_000
"""One address has about 28,000 ports to connect from."""


def issue(
    *,
    requests: Annotated[int, typer.Option(min=1, max=MAX_REQUESTS, help="Tokens to ask for.")] = 10_000,
    parallel: Annotated[
        int, typer.Option(min=1, max=1000, help="Of them on their way at the same time.")
    ] = 50,
    at_once: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_AT_ONCE, help="Then so many at once, each on a connection of its own; 0: none."
        ),
    ] = 15_000,
    runs: Runs = 3,
    as_json: AsJson = False,
) -> None:
    """Token requests: what does one cost, and is a crowd that asks at once answered?

    Each request is another session's. Of those that come at once every one
    must be answered, with a token or with a time to wait; exit code 1 if not.
    """
    from relay.bench.benchmarks.issue import IssueOptions, measure_issue

    options = IssueOptions(requests=requests, parallel=parallel, at_once=at_once, runs=runs)
    run_to_exit(lambda progress: measure_issue(options, progress), as_json=as_json)
