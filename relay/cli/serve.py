"""`relay serve`: runs the relay."""

import os
import sys
from functools import partial
from typing import Annotated

import typer

from relay.cli.options import ConfigOption, config_path
from relay.server.process_roles import Role

RoleOption = Annotated[
    Role,
    typer.Option(
        "--role", help="The part of the relay that runs here. Only the issuer needs the private key."
    ),
]


def serve(config: ConfigOption = None, role: RoleOption = Role.ALL) -> None:
    """Run the relay until SIGINT or SIGTERM. SIGHUP reads the settings again."""
    from relay.server import logs, run
    from relay.settings.load import load

    path = config_path(config)
    settings = load(path)
    logs.configure(level=settings.log.level, format=settings.log.format)

    # if the audit log is copied to standard output, nothing else may be written there
    out = sys.stdout if settings.audit.stdout == "nothing" else sys.stderr

    def announce(ports: run.Ports) -> None:
        print(f"public   http port {ports.http or '-'}   {settings.public.url}", file=out)
        print(f"stream   ws port {ports.stream or '-'}   {settings.public.stream_url}", file=out)
        print(f"internal http port {ports.internal}   pid {os.getpid()}", file=out, flush=True)

    run.start(settings, role=role, announce=announce, read_again=partial(load, path))
