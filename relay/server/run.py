"""Runs a relay: settings in, three listeners out, until a signal comes.

Start: everything that can fail for a person's mistake (ports, keys, files) fails first, before a listener
accepts anything; then the parts start from the inside out, and the announcement comes last. Stop goes the other
way: the gate refuses newcomers, sockets are closed, requests finish, then the log and the state are written out.

One task group holds every part. A listener that dies takes the service down, loudly: half a relay looks healthy
from outside and is not.
"""

import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import structlog
from anyio.abc import TaskStatus
from starlette.routing import BaseRoute

from relay import __version__
from relay.core.errors import ConfigurationError
from relay.ingest.frames import MAX_FRAME_BYTES
from relay.metrics.lag import watch_loop
from relay.net.sockets import bind, bound_port, raise_file_limit
from relay.server.gc_tuning import tune_gc
from relay.server.keys import watch_keys
from relay.server.listeners import internal_app, public_app
from relay.server.options import ListenerTls, http_unauthenticated, listener_tls
from relay.server.parts import Parts, make_parts
from relay.server.process_roles import Role
from relay.settings.load import Settings
from relay.stream.heartbeat import run_heartbeat
from relay.web.uvicorn_runner import HttpServer

STOP_WITHIN_S = 1.8
"""Seconds for an orderly stop, after which what is left is cancelled: Ctrl-C must not feel broken."""

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports that the three listeners got; None for one that this role does not have."""

    http: int | None = None
    stream: int | None = None
    internal: int


async def run(
    settings: Settings,
    *,
    role: Role = Role.ALL,
    announce: Callable[[Ports], None],
    pages: Callable[[], Sequence[BaseRoute]] = tuple,
) -> None:
    """Run a relay, or one side of it, until SIGINT or SIGTERM.

    `announce` is called when everything accepts connections. `pages` gives further public routes; the demo has
    its page there, a deployment has none.

    Raises:
        ConfigurationError: if something in the settings or on this machine keeps it from starting.
    """
    async with contextlib.AsyncExitStack() as stack:
        listen = settings.listen
        sockets = {
            name: stack.enter_context(contextlib.closing(bind(address, setting=f"listen.{name}")))
            for name, address, wanted in (
                ("http", listen.http, role.issues),
                ("stream", listen.stream, role.streams),
                ("internal", listen.internal, True),
            )
            if wanted
        }
        tls = listener_tls(settings)
        parts = await stack.enter_async_context(make_parts(settings, role))
        await _serve(parts, sockets, tls, announce=announce, pages=pages())


async def _serve(
    parts: Parts,
    sockets: Mapping[str, socket.socket],
    tls: ListenerTls,
    *,
    announce: Callable[[Ports], None],
    pages: Sequence[BaseRoute],
) -> None:
    public_tls, internal_tls = (side.context if side else None for side in (tls.public, tls.internal))
    servers = [
        HttpServer(
            internal_app(parts), sockets["internal"], tls=internal_tls, max_frame_bytes=MAX_FRAME_BYTES
        )
    ]
    if "http" in sockets:
        app = public_app(parts, pages)
        servers.append(
            HttpServer(
                app,
                sockets["http"],
                tls=public_tls,
                strict_transport=tls.strict,
                accept_queue=parts.accept_queue,
                unauthenticated=http_unauthenticated(parts.settings),
            )
        )
    async with anyio.create_task_group() as group:
        group.start_soon(run_heartbeat, parts.fanout.hub, parts.stream.registry)
        group.start_soon(watch_loop, parts.loop_lag)
        group.start_soon(watch_keys, parts.keys, parts.auditor, parts.stream.registry)
        stream = None
        if "stream" in sockets:
            stream = await parts.stream.start(sockets["stream"], tls=public_tls)
        for server in servers:
            group.start_soon(server.run)
        for server in servers:
            await server.started()
        if tls.sides:  # without them a hang-up ends the process, as a terminal's user expects
            await group.start(_renew_certificates, tls)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            announce(Ports(**{name: bound_port(sock) for name, sock in sockets.items()}))
            log.info("started", version=__version__, endpoints=sorted(parts.settings.endpoints))
            await _until_stopped(parts, signals)
            with anyio.move_on_after(STOP_WITHIN_S):
                for server in servers:
                    server.stop()
                if stream is not None:
                    await parts.stream.stop(stream)
        group.cancel_scope.cancel()


async def _renew_certificates(tls: ListenerTls, *, task_status: TaskStatus[None]) -> None:
    """Take renewed certificates on SIGHUP. Those that can't be used change nothing but the log."""
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                await anyio.to_thread.run_sync(tls.check)
                for side in tls.sides:
                    side.take()
            except ConfigurationError as error:
                log.error("the certificates can't be used; the old ones are served on", reason=str(error))
            else:
                log.info("the certificates were read again")


async def _until_stopped(parts: Parts, signals: AsyncIterator[int]) -> None:
    """Wait for SIGINT, or for SIGTERM and the end of the drain. SIGINT during the drain ends it."""
    async with anyio.create_task_group() as drain:

        async def send_away() -> None:
            await parts.stream.drain()
            await parts.ingest_sockets.drain()  # last: until then there is somebody to have fresh prices
            drain.cancel_scope.cancel()

        async for number in signals:
            name = signal.Signals(number).name
            log.info("stopping", signal=name, connections=len(parts.stream.registry.connections))
            if number == signal.SIGINT:
                drain.cancel_scope.cancel()
                break
            if not parts.stopping:
                parts.stopping = True
                drain.start_soon(send_away)
    parts.stopping = True


def start(
    settings: Settings,
    *,
    role: Role = Role.ALL,
    announce: Callable[[Ports], None],
    pages: Callable[[], Sequence[BaseRoute]] = tuple,
) -> None:
    """Run a relay on a uvloop event loop and in a process of its own, until SIGINT or SIGTERM. See `run`."""

    raise_file_limit()

    def started(ports: Ports) -> None:
        tune_gc()
        announce(ports)

    anyio.run(
        partial(run, settings, role=role, announce=started, pages=pages), backend_options={"use_uvloop": True}
    )
