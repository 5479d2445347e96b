"""`relay bench audit`."""

from typing import Annotated

import typer

from relay.cli.bench.connect import MAX_CONNECTIONS
from relay.cli.bench.options import AsJson, Runs
from relay.cli.bench.running import run_to_exit


def audit(
    *,
    connections: Annotated[
        int, typer.Option(min=1, max=MAX_CONNECTIONS, help="Connections of each side.")
    ] = 5000,
    parallel: Annotated[
        int, typer.Option(min=1, max=500, help="Of them on their way at the same time.")
    ] = 50,
    runs: Runs = 5,
    as_json: AsJson = False,
) -> None:
    """The same connections with the audit log and without: what does the log cost one?

    The yardstick is the same relay, whose log hears of no connection. Tokens
    are recorded on both sides, and no delivery is on either.
    """
    from relay.bench.benchmarks.audit import AuditOptions, measure_audit

    options = AuditOptions(connections=connections, parallel=parallel, runs=runs)
    run_to_exit(lambda progress: measure_audit(options, progress), as_json=as_json)
