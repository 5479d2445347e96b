"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from relay.core.errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:8002"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="RELAY_CONFIG",
        help="The settings file. Default: relay.toml in this folder, if it exists. RELAY_* variables win over it.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UrlOption = Annotated[str, typer.Option("--url", help="The relay's internal address.")]
PublishKeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="RELAY_PUBLISH_KEY",
        metavar="NAME.SECRET",
        help="The publisher key. The environment variable keeps it out of the process list.",
    ),
]


def config_path(config: Path | None) -> Path | None:
    """Return the settings file: the one of the option, else relay.toml in this folder if it exists."""
    here = Path("relay.toml")
    return config if config is not None or not here.exists() else here


def require_publish_key(key: str) -> None:
    """Check that there is a publisher key.

    Raises:
        ConfigurationError: if there is none.
    """
    if not key:
        raise ConfigurationError(
            "A publisher key is needed, as --key or in RELAY_PUBLISH_KEY; `relay keys publisher NAME` makes one."
        )
