"""Another service with `relay.verify` on a real uvicorn, without the relay's server."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from relay.verify import ScopedTokenMiddleware, Verifier
from tests.support.raw_http import Answer, exchange, head


class Service:
    """What a test gets of it: its port, and the calls that came through."""

    def __init__(self) -> None:
        self.port = 0
        self.calls: list[str] = []
        self.lived = ""

    async def export(self, request: Request) -> JSONResponse:
        """Say who called, as each of the two places tells it."""
        self.calls.append(request.url.path)
        claims = request.scope.get("relay.claims")
        same = getattr(request.state, "relay_claims", None) is claims
        return JSONResponse({"user": claims.subject if claims else None, "same": same})

    async def socket(self, websocket: WebSocket) -> None:
        """Say who connected, and end."""
        await websocket.accept()
        await websocket.send_text(json.dumps({"user": websocket.scope["relay.claims"].subject}))
        await websocket.close()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[dict[str, Any]]:
        """Note that the service started and ended in order."""
        self.lived = "started"
        yield {"shared": 1}
        self.lived = "ended"

    async def call(self, text: str | None, *fields: tuple[str, str], **options: Any) -> Answer:
        """Call this service; see `call`."""
        return await call(self.port, text, *fields, **options)


async def call(
    port: int,
    text: str | None,
    *fields: tuple[str, str],
    path: str = "/v1/export",
    origin: str | None = "https://app.example.com",
    method: str = "POST",
) -> Answer:
    """Call a service with a token as Bearer from a page of this origin, and any other header fields."""
    first: list[tuple[str, str]] = [("Host", "reports.example.com"), ("Content-Length", "0")]
    if text is not None:
        first.append(("Authorization", f"Bearer {text}"))
    if origin is not None:
        first.append(("Origin", origin))
    return await exchange(port, head(method, path, [*first, *fields]))


class _Server(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextlib.asynccontextmanager
async def serving(
    verifier: Verifier, *, paths: Iterable[str] | None = ("/v1/export",), **options: Any
) -> AsyncIterator[Service]:
    """Run a service with one protected path and an open one, and the same again below /mounted."""
    service = Service()
    guard = Middleware(
        ScopedTokenMiddleware, verifier=verifier, paths=paths if paths is None else tuple(paths)
    )
    routes = [
        Route("/v1/export", service.export, methods=["GET", "POST"]),
        Route("/v1/export/{rest:path}", service.export, methods=["GET", "POST"]),
        Route("/v1/exports", service.export, methods=["GET", "POST"]),
        WebSocketRoute("/v1/export", service.socket),
    ]
    inner = Starlette(routes=routes, middleware=[guard])
    app = Starlette(routes=[Mount("/mounted", inner), *routes], middleware=[guard], lifespan=service.lifespan)
    server = _Server(uvicorn.Config(app, log_config=None, **options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service.port = listener.getsockname()[1]
        running = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(10):
            await server.ready.wait()
        try:
            yield service
        finally:
            server.should_exit = True
            await running
