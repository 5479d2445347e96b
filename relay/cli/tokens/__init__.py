"""`relay token`: three questions about scoped tokens, and one command for each.

`inspect`: what does it say? Needs nothing but the token. `verify`: would it be accepted here and now? Needs the keys,
and the settings or what stands in them. `mint`: may I have one, for a test? Needs the private key, and leaves a record.

What a token says comes from whoever made it, so nothing of it reaches a terminal raw: see `showing`.
"""

import typer

from relay.cli.tokens.inspecting import inspect
from relay.cli.tokens.minting import mint
from relay.cli.tokens.verifying import verify

app = typer.Typer(no_args_is_help=True, help="Explain, check and make scoped tokens.")
app.command()(inspect)
app.command()(verify)
app.command()(mint)
