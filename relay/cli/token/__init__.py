"""`relay token`: one module a command.

`inspect` explains what a token says, and needs nothing but the token. `verify` says whether it would be accepted
here and now, and needs the keys, and the settings or values from them. `mint` makes a token for a test. It needs the
private key, and it leaves a record.

A token's text can come from an attacker, so `output` escapes all of it for the terminal.
"""

import typer

from relay.cli.lazy import LazyGroup


class _Commands(LazyGroup):
    entries = {
        "inspect": (
            "relay.cli.token.inspect_token:inspect",
            "Explain a token, and name every reason why any relay would refuse it now.",
        ),
        "verify": (
            "relay.cli.token.verify:verify",
            "Say whether a token would be accepted now, or every reason why not.",
        ),
        "mint": (
            "relay.cli.token.mint:mint",
            "Make a token that is good for one connection within tokens.ttl_s, and record who made it.",
        ),
    }


app = typer.Typer(cls=_Commands, no_args_is_help=True, help="Explain, check and make scoped tokens.")


@app.callback()
def token() -> None:
    """Explain, check and make scoped tokens."""
