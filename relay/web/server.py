"""Runs a Starlette application on uvicorn inside the service's own task group.

uvicorn by itself takes over SIGINT and SIGTERM, logs query strings and believes proxies' headers; all three are
switched off here. Signals belong to `relay.app`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from relay.web.connections import BoundedHttp

GRACE_S = 1
"""Seconds that open requests get at the end. None of ours takes longer, but for an upload that stalls."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield


class HttpServer:
    """One HTTP listener. `run` returns after `stop`."""

    def __init__(self, app: Starlette, sock: socket.socket) -> None:
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",  # the loop runs already
                http=BoundedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=True,
                timeout_graceful_shutdown=GRACE_S,
                limit_concurrency=None,
                backlog=4096,
            )
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
