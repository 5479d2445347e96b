"""Runs an ASGI application on uvicorn within the relay's own task group, with security headers on each answer.

uvicorn by default handles SIGINT and SIGTERM, logs query strings and believes proxies' headers. All three are switched
off here. `relay.server.run` handles the signals.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.core.errors import Reason, Refusal
from relay.net.sockets import USER_TIMEOUT_MS
from relay.web.answers import refusal_answer
from relay.web.bounded_protocol import BoundedHttp, ConnectionOptions
from relay.web.bounded_websocket import BoundedWebSocket
from relay.web.client_link import ClientLink
from relay.web.headers import SecurityHeaders
from relay.web.strict_requests import StrictRequests

LISTENERS = 24
"""Listeners on the same socket if connections can be refused cheaply. uvloop accepts one connection for each of them in
a turn of the loop. With one listener, a crowd waits in the kernel for many seconds, and nobody is told to wait."""
NOTSENT_LOWAT_BYTES = 16_384
"""Unsent bytes that the kernel takes for a connection."""
RECEIVE_BYTES = 32_768
PUBLISHERS_RECEIVE_BYTES = 131_072
"""Bytes that the kernel receives for a connection before they are read; it uses twice the memory.

Left alone, the kernel holds 5 MB for a client that sends requests and takes no answer. 300 such clients use up what a
machine with 24 GB has for all sockets."""
GRACE_S = 1
"""Seconds that open requests get when the relay stops. Only an upload that stalls takes longer."""


class EndedRequests:
    """ASGI middleware: answer 503 to a request that still runs when the relay has stopped, or cut its answer off.

    uvicorn cancels such a request, and would log a traceback for it; so it does with a WebSocket whose client takes
    nothing, which is ended by `BoundedWebSocket.shutdown`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        if scope["type"] != "http":
            with contextlib.suppress(asyncio.CancelledError):
                await self._app(scope, receive, send)
            return None
        started = False

        async def noted_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            return await self._app(scope, receive, noted_send)
        except asyncio.CancelledError:
            link: ClientLink = scope["state"]["presence"]
            if started:
                return await link.cut()
            if not link.gone:
                await refusal_answer(Refusal(reason=Reason.SERVER_STOPPING))(scope, receive, send)
            return None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connection_options: ConnectionOptions) -> None:
        super().__init__(config)
        self._connection_options = connection_options

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: `relay.server.run` handles the signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on given sockets as uvicorn does, but over TCP. Each connection begins TLS when it is counted."""
        self.servers = []
        listeners = 1 if self._connection_options.shedder is None else LISTENERS
        for sock in (
            one for own in sockets or () for one in (own, *(own.dup() for _ in range(listeners - 1)))
        ):
            server = await asyncio.get_running_loop().create_server(
                self._new_connection, sock=sock, backlog=self.config.backlog
            )
            self.servers.append(server)
        self.started = True

    def _new_connection(self) -> asyncio.Protocol:
        return BoundedHttp(
            self.config,
            self.server_state,
            self.lifespan.state,
            connection_options=self._connection_options,
        )


class HttpServer:
    """One HTTP listener."""

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        connections: ConnectionOptions | None = None,
        *,
        strict_transport: bool = False,
        max_frame_bytes: int | None = None,
    ) -> None:
        """Prepare to serve `app` on a bound socket, with HSTS if `strict_transport`.

        If the application takes WebSockets, `max_frame_bytes` is their longest message; without it offered upgrades are
        ignored.
        """
        # accepted sockets inherit the options
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
        receive_bytes = RECEIVE_BYTES if max_frame_bytes is None else PUBLISHERS_RECEIVE_BYTES
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._sock = sock
        self._ended = asyncio.Event()
        self._server = _Server(
            uvicorn.Config(
                SecurityHeaders(EndedRequests(StrictRequests(app)), strict=strict_transport),
                loop="none",  # the loop already runs
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
            connections or ConnectionOptions(),
        )

    async def run(self) -> None:
        """Serve until `stop` is called."""
        try:
            await self._server.serve(sockets=[self._sock])
        finally:
            self._ended.set()

    async def started(self) -> None:
        """Wait until connections are accepted."""
        while not self._server.started:  # noqa: ASYNC110  # uvicorn has only a flag for it
            await asyncio.sleep(0.005)

    def hand_over(self) -> None:
        """Accept no further connections: another process accepts from the same socket. Open ones end with an answer."""
        for server in self._server.servers:
            server.close()
        self._server.config.encoded_headers.append((b"connection", b"close"))

    def stop(self) -> None:
        """Accept no new requests. `run` returns when the open ones are answered, or after `GRACE_S`."""
        self._server.should_exit = True

    async def ended(self) -> None:
        """Wait until `run` has returned."""
        await self._ended.wait()
