"""`relay bench`: what the relay costs on this machine, beside a yardstick measured in the same run.

One module a command; what they share is in `options` (options), `given` (a relay that runs already) and `running`
(progress, tables, exit codes).
"""

import typer

from relay.cli.bench.audit import audit
from relay.cli.bench.connect import connect
from relay.cli.bench.everything import everything
from relay.cli.bench.fanout import fanout
from relay.cli.bench.issue import issue
from relay.cli.bench.mixed import mixed
from relay.cli.bench.publish import publish
from relay.cli.bench.replay import replay
from relay.cli.bench.slow_reader import slow_reader

app = typer.Typer(no_args_is_help=True, help="Measure the relay on this machine, beside a yardstick.")


@app.callback()
def bench() -> None:
    """Measure the relay on this machine, beside a yardstick.

    Exit code 0: measured; 1: a run failed, or something was lost; 2: the
    command itself was wrong.
    """


app.command()(fanout)
app.command()(mixed)
app.command("slow-reader")(slow_reader)
app.command()(connect)
app.command()(issue)
app.command()(audit)
app.command()(publish)
app.command()(replay)
app.command("all")(everything)
