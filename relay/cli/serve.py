"""`relay serve`: runs the relay."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.options import ConfigOption, config_path
from relay.core.errors import ConfigurationError
from relay.server.process_roles import Role, listeners, role_of

if TYPE_CHECKING:
    from relay.settings.load import Settings

Announce = Callable[[Mapping[str, int | None], str], None]
MAX_WORKERS = 256
"""More processes than any machine has use for; a typing error of a digit starts no thousand."""

RoleOption = Annotated[
    Role | None,
    typer.Option(
        "--role",
        help="The part of the relay that runs here, in place of listen.role. Only the issuer needs the private key.",
    ),
]


WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        max=MAX_WORKERS,
        help="Processes that share the listeners. More than one needs engine.url. 0: one, without a supervisor.",
    ),
]


def serve(
    config: ConfigOption = None,
    role: RoleOption = None,
    workers: WorkersOption = 0,
    worker: Annotated[str, typer.Option("--worker", hidden=True)] = "",
) -> None:
    """Run the relay until SIGINT or SIGTERM. SIGHUP reads the settings again.

    With --workers, SIGUSR2 replaces the processes by new ones without a refused connection.
    """
    from relay.server import logs
    from relay.settings.load import load

    path = config_path(config)
    settings = load(path)
    role = role_of(settings, role)
    logs.configure(level=settings.log.level, format=settings.log.format)

    # if the audit log is copied to standard output, nothing else may be written there
    out = sys.stdout if settings.audit.stdout == "nothing" else sys.stderr

    def announce(ports: Mapping[str, int | None], note: str) -> None:
        print(f"public   http port {ports.get('http') or '-'}   {settings.public.url}", file=out)
        print(f"stream   ws port {ports.get('stream') or '-'}   {settings.public.stream_url}", file=out)
        print(f"internal http port {ports['internal']}   pid {os.getpid()}{note}", file=out, flush=True)

    if workers > 1 or (workers and settings.engine.url.get_secret_value()):
        raise typer.Exit(_supervise(settings, path, role, workers, announce))
    from relay.server import run
    from relay.server.worker import Worker

    if worker:
        logs.name_process(os.getpid())
    run.start(
        settings,
        role=role,
        worker=Worker.parse(worker) if worker else None,
        announce=lambda ports: None if worker else announce(asdict(ports), ""),
        read_again=partial(load, path),
    )


def _supervise(
    settings: "Settings",
    path: Path | None,
    role: Role,
    workers: int,
    announce: Callable[[Mapping[str, int | None], str], None],
) -> int:
    """Run workers, and return the exit code."""
    from relay.server.cores import usable_cores
    from relay.server.supervisor import Plan, supervise

    if not settings.engine.url.get_secret_value():
        raise ConfigurationError(
            f"--workers {workers}: several processes need an engine that they share. Run Redis or Valkey, install "
            "scoped-relay[redis], and add these lines to relay.toml:\n"
            '[engine]\nurl = "redis://127.0.0.1:6379"\nprefix = "r1"'
        )
    if workers > (cores := usable_cores()):
        sys.stderr.write(
            f"--workers {workers} is more than this process may use ({cores:g} cores): they will wait for each other.\n"
        )
    command = [sys.executable, "-m", "relay", "serve", "--role", role.value]
    plan = Plan(
        command=[*command, "--config", str(path)] if path else command,
        addresses=listeners(settings, role),
        workers=workers,
        drain_s=settings.limits.drain_s,
        announce=lambda ports: announce(ports, f"   workers {workers}"),
    )
    return supervise(plan)
