"""The process of a relay: startup, main loop, shutdown.

One task group holds every part. If a listener dies, the whole process ends with an error: a relay with one dead
listener would look healthy from outside.
"""

import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup
from starlette.routing import BaseRoute
from websockets.asyncio.server import Server

from relay import __version__
from relay.ingest.frames import MAX_FRAME_BYTES
from relay.metrics.lag import watch_loop
from relay.net.sockets import bind, bound_port, raise_file_limit
from relay.server.certificates import ListenerTls, listener_tls
from relay.server.engine import EngineWatch
from relay.server.freed_memory import return_freed_memory
from relay.server.gc_tuning import tune_gc
from relay.server.http_connections import connection_options
from relay.server.internal import internal_app
from relay.server.keys import watch_keys
from relay.server.notify import READY, give_signs_of_life, notify, notify_stopping
from relay.server.parts import Parts, make_parts
from relay.server.process_roles import Role, listeners
from relay.server.public import public_app
from relay.server.reload import Reloader
from relay.server.worker import Worker, end_with_supervisor
from relay.settings.load import Settings
from relay.stream.heartbeat import run_heartbeat
from relay.stream.idle_channels import remove_idle_channels
from relay.stream.listener import TOKEN_WITHIN_S, hand_over
from relay.web.uvicorn_runner import HttpServer

HAND_OVER = signal.SIGUSR2
"""The supervisor's signal to a worker whose successor accepts connections: stop accepting, and drain."""
STOP_WITHIN_S = 1.8
"""Seconds for an orderly stop, after which the rest is cancelled: Ctrl-C must not feel broken."""

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports that the three listeners got; None for one that this role does not have."""

    http: int | None = None
    stream: int | None = None
    internal: int


def start(
    settings: Settings,
    *,
    role: Role = Role.ALL,
    worker: Worker | None = None,
    announce: Callable[[Ports], None],
    pages: Callable[[], Sequence[BaseRoute]] = tuple,
    read_again: Callable[[], Settings] | None = None,
) -> None:
    """Run a relay, or one side of it, in this process until SIGINT or SIGTERM.

    `announce` is called when everything accepts connections. `pages` gives further public routes; the demo has
    its page there, a deployment has none. `read_again` returns the settings for SIGHUP, and may raise
    `ConfigurationError`; without it SIGHUP reads the certificates only. A `worker` has the sockets of its supervisor.

    Raises:
        ConfigurationError: if something in the settings or on this machine keeps it from starting.
    """
    raise_file_limit()
    serve = partial(
        _serve,
        settings,
        role=role,
        worker=worker,
        announce=announce,
        pages=pages,
        read_again=read_again or (lambda: settings),
    )
    anyio.run(serve, backend_options={"use_uvloop": True})


async def _serve(
    settings: Settings,
    *,
    role: Role,
    worker: Worker | None,
    announce: Callable[[Ports], None],
    pages: Callable[[], Sequence[BaseRoute]],
    read_again: Callable[[], Settings],
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        # from before the start until after the end: SIGHUP never ends a relay
        hangups = stack.enter_context(anyio.open_signal_receiver(signal.SIGHUP))
        # ports, certificates, keys and files first: a mistake in the settings shows before a listener accepts anything
        sockets = _bind(stack, settings, role, worker)
        tls = listener_tls(settings)
        parts = await stack.enter_async_context(make_parts(settings, role, worker=worker))
        process = _Process(parts, sockets, tls, pages())
        async with anyio.create_task_group() as group:
            await process.startup(group)
            group.start_soon(Reloader(parts, tls, read_again).run, hangups)
            group.start_soon(give_signs_of_life)
            ends = [signal.SIGINT, signal.SIGTERM]
            if worker is not None:
                end_with_supervisor()
                ends.append(HAND_OVER)
            # until the very end: a second signal must not kill the process while it writes its log and its state
            with anyio.open_signal_receiver(*ends) as signals:
                tune_gc()
                announce(process.ports)
                notify(READY)
                await process.main_loop(signals)
                await process.shutdown()
            group.cancel_scope.cancel()


def _bind(
    stack: contextlib.AsyncExitStack, settings: Settings, role: Role, worker: Worker | None
) -> dict[str, socket.socket]:
    return {
        name: stack.enter_context(
            contextlib.closing(
                bind(address, setting=f"listen.{name}") if worker is None else worker.inherited(name)
            )
        )
        for name, address in listeners(settings, role).items()
    }


class _Process:
    """The listeners and the parts of one relay, from start to stop."""

    def __init__(
        self,
        parts: Parts,
        sockets: Mapping[str, socket.socket],
        tls: ListenerTls,
        pages: Sequence[BaseRoute],
    ) -> None:
        self._parts = parts
        self._sockets = sockets
        public, internal = (side.context if side else None for side in (tls.public, tls.internal))
        self._public_context = public
        options = connection_options(parts, internal, parts.internal_unauthenticated)
        self._servers = [
            HttpServer(internal_app(parts), sockets["internal"], options, max_frame_bytes=MAX_FRAME_BYTES)
        ]
        self._stream: list[Server] = []
        if "http" in sockets:
            options = connection_options(parts, public, parts.http_unauthenticated)
            options = replace(options, accept_queue=parts.accept_queue, shedder=parts.shedder)
            self._servers.append(
                HttpServer(public_app(parts, pages), sockets["http"], options, strict_transport=tls.strict)
            )

    @property
    def ports(self) -> Ports:
        """The ports that the listeners got."""
        return Ports(**{name: bound_port(sock) for name, sock in self._sockets.items()})

    async def startup(self, group: TaskGroup) -> None:
        """Start the parts from the inside out, the listeners last. Return when they accept connections."""
        parts = self._parts
        group.start_soon(run_heartbeat, parts.fanout.hub, parts.stream.registry)
        group.start_soon(parts.stream.sent.run)
        group.start_soon(
            remove_idle_channels,
            parts.fanout.hub,
            parts.ingest.remove,
            lambda: parts.settings.channels.idle_s,
        )
        if parts.engine is not None:
            watch = EngineWatch(parts.engine.health, parts.fanout.hub, parts.stream)
            group.start_soon(watch.run)
        group.start_soon(watch_loop, parts.loop_lag)
        counts = [parts.stream.unauthenticated, parts.http_unauthenticated, parts.internal_unauthenticated]
        group.start_soon(return_freed_memory, counts)
        group.start_soon(watch_keys, parts.keys, parts.auditor, parts.stream.registry)
        if "stream" in self._sockets:
            self._stream = await parts.stream.start(self._sockets["stream"], tls=self._public_context)
        if parts.peers is not None:
            group.start_soon(parts.peers.serve)
        for server in self._servers:
            group.start_soon(server.run)
        for server in self._servers:
            await server.started()

    async def main_loop(self, signals: AsyncIterator[int]) -> None:
        """Wait for SIGINT, or for SIGTERM and the end of the drain. SIGINT during the drain ends the drain."""
        parts = self._parts
        log.info("started", version=__version__, endpoints=sorted(parts.settings.endpoints))
        async with anyio.create_task_group() as draining:

            async def drain(within_s: float, *, has_successor: bool = False) -> None:
                notify_stopping(TOKEN_WITHIN_S + within_s + STOP_WITHIN_S)
                async with anyio.create_task_group() as both:
                    both.start_soon(parts.open_calls.drain, within_s)
                    await parts.stream.drain(has_successor=has_successor)
                # publishers last: connections that are still open get fresh prices until then
                await parts.ingest_sockets.drain()
                draining.cancel_scope.cancel()

            async def hand_over() -> None:
                with handing_over:
                    await self._hand_over()
                    await drain(parts.settings.limits.handover_s, has_successor=True)

            handing_over, is_draining = anyio.CancelScope(), False
            async for number in signals:
                name = signal.Signals(number).name
                log.info("stopping", signal=name, connections=len(parts.stream.registry.connections))
                if number == signal.SIGINT:
                    draining.cancel_scope.cancel()
                    break
                if number == HAND_OVER and not parts.stopping:
                    draining.start_soon(hand_over)
                elif number == signal.SIGTERM and not is_draining:
                    is_draining = True
                    handing_over.cancel()  # it may take longer than the sender of SIGTERM waits
                    draining.start_soon(drain, parts.settings.limits.drain_s)
                parts.stopping = True
        parts.stopping = True

    async def _hand_over(self) -> None:
        """Leave the sockets to the successor, which accepts from them already.

        Connections that were accepted before get `TOKEN_WITHIN_S` to show their tokens, without a 503.
        """
        for server in self._servers:
            server.hand_over()
        hand_over(self._stream)
        with anyio.move_on_after(TOKEN_WITHIN_S):
            while self._parts.stream.unauthenticated.total:  # noqa: ASYNC110  # a count, without an event
                await anyio.sleep(0.02)

    async def shutdown(self) -> None:
        """Stop the listeners. The caller then closes the parts, which write out the log and the state."""
        with anyio.move_on_after(STOP_WITHIN_S):
            async with anyio.create_task_group() as stopping:
                self._parts.open_calls.end_streams()
                for server in self._servers:
                    server.stop()
                    stopping.start_soon(server.ended)
                if self._stream:
                    stopping.start_soon(self._parts.stream.stop, self._stream)
