"""`relay config`: check the settings without starting anything, or show them without secrets."""

import typer

from relay.cli.options import ConfigOption, config_path
from relay.cli.serve import RoleOption
from relay.server.process_roles import SPLIT_NOTE, Role, role_of

app = typer.Typer(no_args_is_help=True, help="Check or show the settings.")


@app.command()
def check(config: ConfigOption = None, role: RoleOption = None) -> None:
    """Check the settings, without starting or writing anything.

    Each mistake is one line on standard error, and the exit code is 2.
    """
    from relay.server import parts
    from relay.server.certificates import listener_tls
    from relay.settings.load import load

    path = config_path(config)
    settings = load(path)
    role = role_of(settings, role)
    parts.check(settings, role)
    listener_tls(settings)
    counts = (
        (len(settings.endpoints), "endpoint"),
        (len(settings.grants), "role"),
        (len(settings.publishers), "publisher"),
    )
    numbers = ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
    print(f"{path or 'RELAY_* variables'}: fine. {numbers}.")
    is_split = role is not Role.ALL or settings.tokens.jwks_url is not None
    if is_split and not settings.engine.url.get_secret_value():
        print(SPLIT_NOTE)


@app.command()
def show(config: ConfigOption = None) -> None:
    """Show the effective settings as JSON, with defaults and without secrets."""
    from relay.settings.load import load

    print(load(config_path(config)).model_dump_json(indent=2))
