"""The command line: one module a command. A user's mistake is one line on standard error and exit code 2."""

import errno
import os
import sys
from typing import Annotated

import typer

from relay import __version__
from relay.cli.lazy import LazyGroup
from relay.core.errors import RelayError


class _Commands(LazyGroup):
    entries = {
        "serve": (
            "relay.cli.serve:serve",
            "Run the relay until SIGINT or SIGTERM. SIGHUP reads the settings again.",
        ),
        "demo": (
            "relay.cli.demo:demo",
            "Start a demo backend, a relay and a market of 20 symbols; open the printed address in a browser.",
        ),
        "doctor": ("relay.cli.doctor:doctor", "Check a deployment for settings that are valid but unwise."),
        "publish": (
            "relay.cli.publish:publish",
            "Publish one JSON value, or JSON lines from files or standard input.",
        ),
        "publishers": (
            "relay.cli.publisher_rates:publishers",
            "Show who publishes what at which rate, and what was refused or dropped.",
        ),
        "listen": ("relay.cli.listen:listen", "Show the values of channels as they arrive."),
        "replay": (
            "relay.cli.replay:replay",
            "Publish recorded quotes and trades again, each to PREFIX.SYMBOL.",
        ),
        "config": ("relay.cli.config:app", "Check or show the settings."),
        "keys": (
            "relay.cli.keys:app",
            "Make and rotate signing keys, and make keys for publishers and operators.",
        ),
        "token": ("relay.cli.token:app", "Explain, check and make scoped tokens."),
        "audit": ("relay.cli.audit:app", "Check the audit log, and query it."),
        "bench": ("relay.cli.bench:app", "Measure the relay on this machine, beside a yardstick."),
    }


app = typer.Typer(
    name="relay",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A realtime relay with scoped tokens: prices to thousands of browsers, and no access token in any of them.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"relay {__version__}")
        raise typer.Exit


@app.callback()
def relay(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the name and version, and exit."
        ),
    ] = False,
) -> None:
    """Take the options that come before a command's name."""


def main() -> None:
    """Run the command line."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except RelayError as error:
        _refuse_other_bytes()
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        # without this, the interpreter's last flush fails again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            print(f"Standard output can't be written: {error.strerror}.", file=sys.stderr)
        sys.exit(1)
    except UnicodeEncodeError:
        _refuse_other_bytes()
        raise


def _refuse_other_bytes() -> None:
    """Exit if an argument is not UTF-8: whatever it was used for failed because of that."""
    for text in sys.argv[1:]:
        try:
            text.encode()
        except UnicodeEncodeError:
            print(f"The argument {text[:80]!a} is not UTF-8.", file=sys.stderr)
            sys.exit(2)
