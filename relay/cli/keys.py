"""`relay keys`: the issuer's signing keys, and the keys of publishers and operators.

No secret is an argument, because arguments show in the process list and in the shell's history. The key of a publisher
or an operator is printed once, on standard output, and stored nowhere. A signing key is never printed.

The commands change the keys' folder. A running relay reads it every second, so that no restart is needed.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.options import ConfigOption, JsonOption, config_path
from relay.core.errors import ConfigurationError
from relay.core.patterns import check_pattern
from relay.keys.api_keys import May, new_bearer_key
from relay.keys.files import (
    create_signing_key,
    each_record,
    load_keys,
    load_records,
    private_path,
    public_path,
)
from relay.keys.lifecycle import KeyState, KeyStatus, key_statuses
from relay.keys.rotation import KEEP_S, PUBLISH_BEFORE_SIGN_S
from relay.keys.rotation import retire as retire_key
from relay.keys.rotation import revoke as revoke_key
from relay.keys.rotation import rotate as rotate_keys

app = typer.Typer(
    no_args_is_help=True, help="Make and rotate signing keys, and make keys for publishers and operators."
)

FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="FOLDER", help="Folder of the keys. Default: tokens.keys_dir of the settings."
    ),
]
KidArgument = Annotated[
    str, typer.Argument(metavar="KID", help="The key's name, as `relay keys list` shows it.")
]


@app.command()
def new(
    folder: Annotated[
        Path,
        typer.Option("--dir", metavar="FOLDER", help="Folder for the key's files, created if missing."),
    ],
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing if the folder has a key already. For scripts.")
    ] = False,
) -> None:
    """Make a folder's first Ed25519 key for signing scoped tokens."""
    for _, record in each_record(folder) if folder.is_dir() else ():
        # report a problem of the folder, or an existing key, before a new key is made
        if isinstance(record, ConfigurationError):
            raise record
        if record.ended is None and if_missing:
            typer.echo(f"{folder} already has the key {record.kid}.")
            return
        if record.ended is None:
            raise ConfigurationError(
                f"{folder} already has a key. Run `relay keys rotate --dir {folder}` to replace it."
            )
    key = create_signing_key(folder)
    load_keys(folder)  # report now what the relay would report at its start
    typer.echo(f"kid      {key.kid}")
    typer.echo(f"private  {private_path(folder, key.kid)}")
    typer.echo(f"public   {public_path(folder, key.kid)}")
    typer.echo("")
    typer.echo(
        "Next: name this folder under [tokens] in relay.toml, if it is not the folder keys beside that file:"
    )
    typer.echo(f"keys_dir = {_toml_text(str(folder.resolve()))}")
    typer.echo("The private file stays with the issuer. A separate stream gets the public file only.")


@app.command()
def rotate(
    folder: FolderOption = None,
    config: ConfigOption = None,
    keep: Annotated[
        int,
        typer.Option(
            "--keep", metavar="SECONDS", min=0, help="Retire keys that were replaced longer ago than this."
        ),
    ] = KEEP_S,
) -> None:
    """Publish a new key, which signs later, and retire keys that were replaced long ago.

    The new key signs tokens.publish_before_sign_s seconds after it was published.
    """
    folder, wait_s = _settings(folder, config)
    now = time.time()
    done = rotate_keys(folder, now=now, publish_before_sign_s=wait_s, keep_s=keep)
    typer.echo(f"new      {done.key.kid}   published now, signs from {_at(done.signs_from)} (in {wait_s} s)")
    for kid in done.retired:
        typer.echo(f"retired  {kid}")
    typer.echo("")
    typer.echo("A running relay reads this by itself. Streams with public keys as files, and without")
    typer.echo(f"tokens.jwks_url, need {public_path(folder, done.key.kid)} before then.")


@app.command(name="list")
def list_keys(
    folder: FolderOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each key's state: next, signing, overlapping, retired or revoked."""
    folder, _ = _settings(folder, config)
    now = time.time()
    found = key_statuses(load_records(folder), now=now)
    if as_json:
        keys = [
            {
                "kid": one.key.kid,
                "state": one.state.value,
                "since": one.since,
                "signs_from": one.key.signs_from,
                "private": one.key.signing is not None,
            }
            for one in found
        ]
        typer.echo(json.dumps({"folder": str(folder), "now": now, "keys": keys}))
        return
    rows = [("kid", "state", "", "private key"), *(_row(one) for one in found)]
    for line in _table(rows):
        typer.echo(line)


@app.command()
def retire(kid: KidArgument, folder: FolderOption = None, config: ConfigOption = None) -> None:
    """Refuse a replaced key's tokens from now on. Its public file stays."""
    folder, _ = _settings(folder, config)
    retire_key(folder, kid, now=time.time())
    typer.echo(f"retired  {kid}")


@app.command()
def revoke(kid: KidArgument, folder: FolderOption = None, config: ConfigOption = None) -> None:
    """Refuse a key's tokens at once, because somebody else may have the key. Its connections are closed."""
    folder, _ = _settings(folder, config)
    successor = revoke_key(folder, kid, now=time.time())
    typer.echo(f"revoked  {kid}   refused within a second where a relay runs on this folder")
    if successor is not None:
        typer.echo(f"signing  {successor}   from now on")
    typer.echo("")
    typer.echo(
        "Tell streams that fetch keys (tokens.jwks_url). Otherwise they take two minutes and leave open"
    )
    typer.echo(f'what the key opened:  POST /v1/revocations {{"kid": "{kid}"}}  on their internal listener.')
    typer.echo("Where the public key is a file, remove the file.")


@app.command()
def publisher(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The publisher's name, such as pricing: small letters, digits, - and _."
        ),
    ],
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channels",
            metavar="PATTERN",
            help="A pattern of channels that it may publish to, such as 'prices.>'; repeat it for several.",
        ),
    ] = None,
) -> None:
    """Make a key for a publisher, and print it once, with the lines for relay.toml."""
    patterns = [check_pattern(pattern) for pattern in channels or []]
    hint = "" if patterns else '  # name the channels that it may publish to, such as "prices.>"'
    _print_bearer_key("publishers", name, f"channels = {_toml_list(patterns)}{hint}")


@app.command()
def operator(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The operator's name, such as ops: small letters, digits, - and _."
        ),
    ],
    may: Annotated[
        list[May] | None,
        typer.Option("--may", help="A right of the key; repeat it for several. Default: read."),
    ] = None,
) -> None:
    """Make a key for an operator of the internal listener, and print it once, with the lines for relay.toml."""
    _print_bearer_key("operators", name, f"may = {_toml_list(list(dict.fromkeys(may or [May.READ])))}")


def _print_bearer_key(section: str, name: str, line: str) -> None:
    presented, digest = new_bearer_key(name)
    typer.echo("# The key, shown this once. It is sent as: Authorization: Bearer <key>")
    typer.echo(presented)
    typer.echo("")
    typer.echo("# For relay.toml, which holds no more than the hash:")
    typer.echo(f"[{section}.{name}]")
    typer.echo(f'secret_sha256 = ["{digest}"]')
    typer.echo(line)
    typer.echo(
        "# A running relay reads the settings again on SIGHUP. To rotate a key, put the new hash beside the old"
    )
    typer.echo(
        '# one, secret_sha256 = ["old", "new"], and send SIGHUP. Give out the new key. Then remove the old hash,'
    )
    typer.echo("# and send SIGHUP again: the old key is refused, and its sockets are closed.")


def _settings(folder: Path | None, config: Path | None) -> tuple[Path, int]:
    """Return the keys' folder, and the seconds between a key's publication and its first signature."""
    path = config_path(config)
    if path is None:
        if folder is None:
            raise ConfigurationError("Name the keys' folder with --dir, or the settings with --config.")
        return folder, PUBLISH_BEFORE_SIGN_S
    from relay.settings.load import load

    tokens = load(path).tokens
    return folder or tokens.keys_dir, tokens.publish_before_sign_s


def _row(one: KeyStatus) -> tuple[str, ...]:
    when = {KeyState.NEXT: "signs from"}.get(one.state, "since")
    private = "here" if one.key.signing is not None else "gone" if one.key.ended else "not here"
    return one.key.kid, one.state.value, f"{when} {_at(one.since)}", private


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _at(seconds: float) -> str:
    if seconds == 0:
        return "always"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _toml_list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_toml_text, texts))}]"


def _toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON's escapes are valid in TOML's basic strings
