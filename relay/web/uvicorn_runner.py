"""Runs an ASGI application on uvicorn inside the service's own task group, with the security headers on each answer.

uvicorn by itself takes over SIGINT and SIGTERM, logs query strings, believes proxies' headers and gives a TLS
handshake a minute; all four are switched off here. Signals belong to `relay.server.run`.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from relay.net.admission import AdmissionQueue
from relay.net.tls import HANDSHAKE_WITHIN_S
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.web.bounded_protocol import BoundedHttp
from relay.web.bounded_websocket import BoundedWebSocket
from relay.web.headers import SecurityHeaders

GRACE_S = 1
"""Seconds that open requests get at the end. None of ours takes longer, but for an upload that stalls."""


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        *,
        accept_queue: AdmissionQueue | None,
        unauthenticated: UnauthenticatedConnections | None,
    ) -> None:
        super().__init__(config)
        self._accept_queue = accept_queue
        self._unauthenticated = unauthenticated

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does on sockets that it is given, with a bound on the TLS handshake."""
        context = self.config.ssl
        self.servers = []
        for sock in sockets or ():
            server = await asyncio.get_running_loop().create_server(
                self._new_connection,
                sock=sock,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_WITHIN_S if context else None,
                backlog=self.config.backlog,
            )
            self.servers.append(server)
        self.started = True

    def _new_connection(self) -> asyncio.Protocol:
        return BoundedHttp(
            self.config,
            self.server_state,
            self.lifespan.state,
            accept_queue=self._accept_queue,
            unauthenticated=self._unauthenticated,
        )


class HttpServer:
    """One HTTP listener. `run` returns after `stop`."""

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        strict_transport: bool = False,
        max_frame_bytes: int | None = None,
        accept_queue: AdmissionQueue | None = None,
        unauthenticated: UnauthenticatedConnections | None = None,
    ) -> None:
        """Serve `app` on a bound socket; over TLS where `tls` is given, and with HSTS if told so.

        If the application takes WebSockets, `max_frame_bytes` is their longest message; without it offered upgrades are
        ignored. New connections wait in `accept_queue` and are counted in `unauthenticated`, if these are given.
        """
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                SecurityHeaders(app, strict=strict_transport),
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
                loop="none",  # the loop runs already
                http=BoundedHttp,
                ws="none" if max_frame_bytes is None else BoundedWebSocket,
                ws_max_size=max_frame_bytes or 0,
                ws_per_message_deflate=False,  # publishers are in the same data centre
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=True,
                timeout_graceful_shutdown=GRACE_S,
                limit_concurrency=None,
                backlog=4096,
            ),
            accept_queue=accept_queue,
            unauthenticated=unauthenticated,
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._sock])

    async def started(self) -> None:
        """Wait until connections are accepted."""
        while not self._server.started:  # noqa: ASYNC110  # uvicorn tells by a flag only
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        """Take no new requests, and let `run` return when the open ones are answered."""
        self._server.should_exit = True
