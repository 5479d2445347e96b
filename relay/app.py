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
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import structlog
from starlette.routing import BaseRoute

from relay import __version__
from relay.collector import spare_the_living
from relay.config import Settings
from relay.listeners import internal_app, public_app
from relay.parts import Parts, make_parts
from relay.stream.heart import beat_for_ever
from relay.web.server import HttpServer
from relay.web.sockets import bind, bound_port

STOP_WITHIN_S = 1.8
"""Seconds for an orderly stop, after which what is left is cancelled: Ctrl-C must not feel broken."""

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports that the three listeners got."""

    http: int
    stream: int
    internal: int


async def run(
    settings: Settings,
    *,
    announce: Callable[[Ports], None],
    pages: Callable[[], Sequence[BaseRoute]] = tuple,
) -> None:
    """Run a relay until SIGINT or SIGTERM.

    `announce` is called when everything accepts connections. `pages` gives further public routes; the demo has
    its page there, a deployment has none.

    Raises:
        ConfigurationError: if something in the settings or on this machine keeps it from starting.
    """
    async with contextlib.AsyncExitStack() as stack:
        listen = settings.listen
        sockets = [
            stack.enter_context(contextlib.closing(bind(address, setting=f"listen.{name}")))
            for name, address in (
                ("http", listen.http),
                ("stream", listen.stream),
                ("internal", listen.internal),
            )
        ]
        parts = await stack.enter_async_context(make_parts(settings))
        await _serve(parts, sockets, announce=announce, pages=pages())


async def _serve(
    parts: Parts,
    sockets: Sequence[socket.socket],
    *,
    announce: Callable[[Ports], None],
    pages: Sequence[BaseRoute],
) -> None:
    public = HttpServer(public_app(parts, pages), sockets[0])
    internal = HttpServer(internal_app(parts), sockets[2])
    async with anyio.create_task_group() as group:
        group.start_soon(beat_for_ever, parts.fanout.hub, parts.stream.registry)
        server = await parts.stream.start(sockets[1])
        group.start_soon(public.run)
        group.start_soon(internal.run)
        await public.started()
        await internal.started()
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            announce(
                Ports(
                    **{
                        name: bound_port(sock)
                        for name, sock in zip(("http", "stream", "internal"), sockets, strict=True)
                    }
                )
            )
            log.info("started", version=__version__, endpoints=sorted(parts.settings.endpoints))
            await _until_stopped(parts, signals)
            with anyio.move_on_after(STOP_WITHIN_S):
                public.stop()
                internal.stop()
                await parts.stream.stop(server)
        group.cancel_scope.cancel()


async def _until_stopped(parts: Parts, signals: AsyncIterator[int]) -> None:
    """Wait for SIGINT, or for SIGTERM and the end of the drain. SIGINT during the drain ends it."""
    async with anyio.create_task_group() as drain:

        async def send_away() -> None:
            await parts.stream.drain()
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
    announce: Callable[[Ports], None],
    pages: Callable[[], Sequence[BaseRoute]] = tuple,
) -> None:
    """Run a relay on a uvloop event loop and in a process of its own, until SIGINT or SIGTERM. See `run`."""

    def started(ports: Ports) -> None:
        spare_the_living()
        announce(ports)

    anyio.run(partial(run, settings, announce=started, pages=pages), backend_options={"use_uvloop": True})
