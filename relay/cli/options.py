"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.core.errors import ConfigurationError

if TYPE_CHECKING:
    from relay.settings.load import Settings

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


def load_settings(config: Path | None, *, otherwise: str) -> "Settings":
    """Return the settings.

    Raises:
        ConfigurationError: if there are mistakes in them. If there is no file, it says what can be done `otherwise`.
    """
    from relay.settings.load import load

    path = config_path(config)
    try:
        return load(path)
    except ConfigurationError as error:
        if path is not None:
            raise
        raise ConfigurationError(f"{error} {otherwise}") from None


def require_publish_key(key: str) -> None:
    """Check that there is a publisher key.

    Raises:
        ConfigurationError: if there is none.
    """
    if not key:
        raise ConfigurationError(
            "A publisher key is needed, as --key or in RELAY_PUBLISH_KEY; `relay keys publisher NAME` makes one."
        )
