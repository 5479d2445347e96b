"""The composition root: settings in, a running relay out. The only place that names concrete adapters.

Start: everything that can fail for a person's mistake (ports, keys, files) fails first, before a listener
accepts anything; then the parts start from the inside out, and the announcement comes last. Stop goes the other
way: the gate refuses newcomers, sockets are closed, requests finish, then the log and the state are written out.

One task group holds every part. A listener that dies takes the service down, loudly: half a relay looks healthy
from outside and is not.
"""

import contextlib
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files

import anyio
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay import __version__
from relay.audit.jsonl import JsonlAuditor
from relay.bff.backend import Backend
from relay.bff.routes import BffOptions, BffParts, bff_routes
from relay.broker.memory import MemoryBroker
from relay.config import Settings
from relay.core.errors import ConfigurationError, Refusal
from relay.core.events import Client
from relay.core.tokens import SigningKey
from relay.ingest.routes import ingest_routes
from relay.ingest.service import Ingest
from relay.issuer.routes import RouteOptions, issuer_routes
from relay.issuer.service import Issuer
from relay.keys.bearer import check_bearer
from relay.keys.files import KeyRing, load_keys
from relay.keys.jwks import to_jwks
from relay.ops import InternalOnly, ops_routes
from relay.sessions.base import Session
from relay.sessions.signed import SignedVerifier
from relay.state.sqlite import SqliteState
from relay.stream.addresses import Waiting
from relay.stream.fanout import Fanout
from relay.stream.gate import Gate
from relay.stream.heart import beat_for_ever
from relay.stream.service import Stream
from relay.web.addresses import parse_networks
from relay.web.answers import error_answer
from relay.web.clients import client_reader
from relay.web.server import HttpServer
from relay.web.sockets import bind, bound_port
from relay.wiring import (
    cookie_options,
    csrf_options,
    feed_options,
    gate_options,
    issuer_options,
    policy,
    publisher_terms,
    signed_options,
    stream_options,
)

STOP_WITHIN_S = 1.8
"""Seconds for an orderly stop, after which what is left is cancelled: Ctrl-C must not feel broken."""

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports that the three listeners got."""

    http: int
    stream: int
    internal: int


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What a running relay is made of."""

    settings: Settings
    keys: KeyRing
    state: SqliteState
    auditor: JsonlAuditor
    fanout: Fanout
    stream: Stream
    issuer: Issuer
    ingest: Ingest
    backend: Backend | None
    stopping: bool = False


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
        parts = await stack.enter_async_context(_parts(settings))
        await _serve(parts, sockets, announce=announce, pages=pages())


def check(settings: Settings) -> tuple[KeyRing, SigningKey, SignedVerifier]:
    """Check what the settings alone can't tell: that there are keys, and that they fit. Nothing is started or written.

    Raises:
        ConfigurationError: with one sentence about the first that does not.
    """
    keys = load_keys(settings.tokens.keys_dir)
    if keys.signing is None:
        raise ConfigurationError(
            f"tokens.keys_dir: {settings.tokens.keys_dir} has no private key; make one with "
            f"`relay keys new --dir {settings.tokens.keys_dir}`."
        )
    return keys, keys.signing, SignedVerifier(signed_options(settings))


@contextlib.asynccontextmanager
async def _parts(settings: Settings) -> AsyncIterator[_Parts]:
    """Make and wire everything but the listeners, and write out what waits at the end."""
    keys, signing, verifier = check(settings)
    state = SqliteState.open(settings.engine.state_path)
    try:
        auditor = JsonlAuditor.open(settings.audit.path, node=socket.gethostname())
        try:
            fanout = Fanout(feed_options(settings))
            broker = MemoryBroker(max_channels=settings.limits.channels)
            broker.attach(fanout.hub.publish)
            backend = _backend(settings)
            yield _Parts(
                settings=settings,
                keys=keys,
                state=state,
                auditor=auditor,
                fanout=fanout,
                stream=_stream(settings, keys, fanout, state, auditor),
                issuer=Issuer(
                    issuer_options(settings),
                    policy=policy(settings),
                    verifier=verifier,
                    state=state,
                    auditor=auditor,
                    key=signing,
                ),
                ingest=Ingest(
                    publisher_terms(settings),
                    broker=broker,
                    auditor=auditor,
                    check_key=check_bearer,
                ),
                backend=backend,
            )
            if backend is not None:
                await backend.aclose()
        finally:
            await auditor.aclose()
    finally:
        await state.aclose()


async def _serve(
    parts: _Parts,
    sockets: Sequence[socket.socket],
    *,
    announce: Callable[[Ports], None],
    pages: Sequence[BaseRoute],
) -> None:
    public = HttpServer(_public_app(parts, pages), sockets[0])
    internal = HttpServer(_internal_app(parts), sockets[2])
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


async def _until_stopped(parts: _Parts, signals: AsyncIterator[int]) -> None:
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


def _public_app(parts: _Parts, pages: Sequence[BaseRoute]) -> Starlette:
    settings = parts.settings
    client_of = client_reader(parse_networks(settings.public.trusted_proxies))
    csrf = csrf_options(settings)
    access, refresh = cookie_options(settings)
    routes: list[BaseRoute] = list(
        issuer_routes(
            parts.issuer,
            RouteOptions(
                csrf=csrf, cookies=(access, refresh), public_origin=settings.public.url, client_of=client_of
            ),
            to_jwks(parts.keys.verify),
        )
    )
    if parts.backend is not None:
        options = BffOptions(
            csrf=csrf,
            access_cookie=access,
            refresh_cookie=refresh,
            ref_key=settings.session.ref_key.get_secret_value().encode(),
        )
        routes += bff_routes(options, _bff_parts(parts, parts.backend, client_of))
    routes.append(Route("/client/relay-client.js", _browser_client))
    routes += pages
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_allowed, 500: _failed})


def _internal_app(parts: _Parts) -> Starlette:
    listen = parts.settings.listen
    client_of = client_reader(())
    return Starlette(
        routes=[
            *ops_routes(lambda: "The relay is stopping." if parts.stopping else None),
            *ingest_routes(parts.ingest, client_of),
        ],
        middleware=[Middleware(InternalOnly, hosts=frozenset(listen.internal_hosts))],
        exception_handlers={404: _not_found, 405: _not_allowed, 500: _failed},
    )


def _bff_parts(parts: _Parts, backend: Backend, client_of: Callable[[Request], Client]) -> BffParts:
    def limit_address(address: str) -> tuple[Refusal, float] | None:
        limited = parts.issuer.limits.address(address)
        return None if limited is None else (limited.refusal, limited.retry_after_s)

    async def authenticate(credential: str) -> Session | Refusal:
        return await parts.issuer.authenticate(credential, now=time.time())

    async def end_session(session: Session) -> None:
        await parts.stream.end_session(session.ref, user=session.subject, client=Client())

    return BffParts(
        backend=backend,
        auditor=parts.auditor,
        client_of=client_of,
        limit_address=limit_address,
        authenticate=authenticate,
        end_session=end_session,
    )


def _stream(
    settings: Settings, keys: KeyRing, fanout: Fanout, state: SqliteState, auditor: JsonlAuditor
) -> Stream:
    def make_gate(waiting: Waiting, draining: Callable[[], bool]) -> Gate:
        return Gate(gate_options(settings), keys=keys.verify, state=state, waiting=waiting, draining=draining)

    return Stream(
        stream_options(settings),
        make_gate=make_gate,
        waiting=Waiting(limit=settings.limits.unauthenticated_per_address),
        fanout=fanout,
        state=state,
        auditor=auditor,
    )


def _backend(settings: Settings) -> Backend | None:
    bff = settings.bff
    if bff.backend is None:
        return None
    return Backend(origin=bff.backend, login_path=bff.login_path, timeout_s=bff.timeout_s)


# what belongs to no shell


async def _browser_client(_request: Request) -> Response:
    script = files("relay").joinpath("static/relay-client.js").read_bytes()
    return Response(
        script,
        media_type="text/javascript",
        headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
    )


async def _not_found(_request: Request, _error: Exception) -> Response:
    return error_answer(404, "not_found", "There is nothing here.")


async def _not_allowed(_request: Request, _error: Exception) -> Response:
    return error_answer(405, "method_not_allowed", "This address does not take this method.")


async def _failed(request: Request, error: Exception) -> Response:
    incident = secrets.token_hex(4)
    log.error("request failed", incident=incident, path=request.url.path, exc_info=error)
    return error_answer(
        500, "internal_error", f"The relay met an error of its own ({incident}).", retryable=True
    )


def start(
    settings: Settings,
    *,
    announce: Callable[[Ports], None],
    pages: Callable[[], Sequence[BaseRoute]] = tuple,
) -> None:
    """Run a relay on a uvloop event loop of its own, until SIGINT or SIGTERM. See `run`."""
    anyio.run(partial(run, settings, announce=announce, pages=pages), backend_options={"use_uvloop": True})
