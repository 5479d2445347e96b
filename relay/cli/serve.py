"""`relay serve`: runs the relay."""

import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.options import ConfigOption, config_path
from relay.core.errors import ConfigurationError
from relay.server.process_roles import Role, listeners, role_of

if TYPE_CHECKING:
    from relay.server.announcement import Announcement
    from relay.settings.load import Settings

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
    from relay.server.announcement import Announcement
    from relay.settings.load import load

    path = config_path(config)
    settings = load(path)
    role = role_of(settings, role)
    logs.configure(level=settings.log.level, format=settings.log.format)

    announcement = Announcement(
        url=settings.public.url,
        stream_url=settings.public.stream_url,
        is_error=settings.audit.stdout != "nothing",
    )
    if workers > 1 or (workers and settings.engine.url.get_secret_value()):
        _supervise(settings, path, role, workers, announcement)
    from relay.server import run
    from relay.server.worker import Worker

    if worker:
        logs.name_process(os.getpid())
    run.start(
        settings,
        role=role,
        worker=Worker.parse(worker) if worker else None,
        announce=lambda ports: None if worker else announcement.show(asdict(ports)),
        read_again=partial(load, path),
    )


def _supervise(
    settings: "Settings", path: Path | None, role: Role, workers: int, announcement: "Announcement"
) -> None:
    """Become the supervisor of the workers.

    This process has read the settings, and so has pydantic and much else in its memory. The supervisor needs none of
    it: the same process runs another program.
    """
    from relay.server.cores import usable_cores
    from relay.server.supervisor import Plan

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
        log_level=settings.log.level,
        log_format=settings.log.format,
        announcement=announcement,
    )
    sys.stderr.flush()
    os.execv(  # noqa: S606  # no shell is needed
        sys.executable, [sys.executable, "-m", "relay.server.supervisor", str(plan)]
    )
