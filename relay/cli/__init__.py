"""The command line. One module a group of commands; what people did wrong is one line and exit code 2."""

import sys

import typer

from relay.cli import audit, bench, config, keys, tokens
from relay.cli.demo import demo
from relay.cli.doctor import doctor
from relay.cli.listen import listen
from relay.cli.publish import publish
from relay.cli.publishers import publishers
from relay.cli.questions import add_questions
from relay.cli.replay import replay
from relay.cli.serve import serve
from relay.core.errors import RelayError

app = typer.Typer(
    name="relay",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A realtime relay with scoped tokens: prices to thousands of browsers, and no access token in any of them.",
)
app.command()(serve)
app.command()(demo)
app.add_typer(config.app, name="config")
app.command()(doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(tokens.app, name="token")
add_questions(audit.app)
app.add_typer(audit.app, name="audit")
app.add_typer(bench.app, name="bench")
app.command()(publish)
app.command()(publishers)
app.command()(listen)
app.command()(replay)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except RelayError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
