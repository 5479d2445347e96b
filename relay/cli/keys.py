"""`relay keys`: make the issuer's signing keys, and the keys of publishers.

Nothing secret is an argument, because arguments show in the process list and in the shell's history. A
publisher's key is printed once, to standard output, and kept nowhere; a signing key is never printed.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from relay.core.channels import check_pattern
from relay.keys.bearer import new_bearer_key
from relay.keys.files import create_signing_key, load_keys, private_path, public_path

app = typer.Typer(no_args_is_help=True, help="Make signing keys, and keys for publishers.")


@app.command()
def new(
    folder: Annotated[
        Path, typer.Option("--dir", metavar="FOLDER", help="Folder for the key's files; made if missing.")
    ],
) -> None:
    """Make a new Ed25519 key for signing scoped tokens."""
    key = create_signing_key(folder)
    ring = load_keys(folder)  # what the relay will say to this folder is said now
    typer.echo(f"kid      {key.kid}")
    typer.echo(f"private  {private_path(folder, key.kid)}")
    typer.echo(f"public   {public_path(folder, key.kid)}")
    typer.echo("")
    if ring.signing is not None and ring.signing.kid != key.kid:
        typer.echo(f"Next: {ring.signing.kid} goes on signing. Restart the relay to publish the new key, and")
        typer.echo("give its public file to streams that run on their own. When all of them have it, remove")
        typer.echo(f"{private_path(folder, ring.signing.kid)} and restart: then the new key signs.")
    else:
        typer.echo("Next: name this folder under [tokens] in relay.toml:")
        typer.echo(f"keys_dir = {_toml_text(str(folder.resolve()))}")
        typer.echo("The private file stays with the issuer. A stream on its own gets the public file only.")


@app.command()
def publisher(
    name: Annotated[
        str, typer.Argument(help="Who publishes, such as pricing: small letters, digits, - and _.")
    ],
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channels",
            metavar="PATTERN",
            help="What it may publish to, such as 'prices.>'; give it once for each pattern.",
        ),
    ] = None,
) -> None:
    """Make a key for a publisher; prints it once, with the lines for relay.toml."""
    patterns = [check_pattern(pattern) for pattern in channels or []]
    presented, digest = new_bearer_key(name)
    listed = f"[{', '.join(map(_toml_text, patterns))}]"
    if not patterns:
        listed += '  # name what it may publish to, such as "prices.>"'
    typer.echo("# The key, shown this once. It is sent as: Authorization: Bearer <key>")
    typer.echo(presented)
    typer.echo("")
    typer.echo("# For relay.toml, which holds no more than the hash:")
    typer.echo(f"[publishers.{name}]")
    typer.echo(f'secret_sha256 = ["{digest}"]')
    typer.echo(f"channels = {listed}")


def _toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # TOML's basic strings take JSON's escapes
