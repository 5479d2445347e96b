"""A backend that the tests ask for real: uvicorn on a free port, which counts its calls and answers as it is told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.net.sockets import bind, bound_port
from relay.web.uvicorn_runner import HttpServer


class Backend:
    """What one route answers. `calls` has the Authorization header of each call, in their order."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[str], Response] = lambda _: Response(status_code=500)
        self._open = asyncio.Event()
        self._open.set()
        self._called = asyncio.Condition()

    def answers(
        self, body: Any = b"", *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer each call so; what is no bytes becomes JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answer = lambda _: Response(content, status_code=status, headers=headers)

    def hold(self) -> None:
        """Leave callers without an answer from now on."""
        self._open.clear()

    def release(self) -> None:
        """Answer those who wait, and those who come."""
        self._open.set()

    async def called(self, times: int) -> None:
        """Wait until there were so many calls."""
        async with asyncio.timeout(10), self._called:
            await self._called.wait_for(lambda: len(self.calls) >= times)

    async def handle(self, request: Request) -> Response:
        """Count the call and answer it."""
        async with self._called:
            self.calls.append(request.headers.get("authorization", ""))
            self.headers.append(dict(request.headers))
            self._called.notify_all()
        await self._open.wait()
        return self.answer(request.headers.get("authorization", ""))


@contextlib.asynccontextmanager
async def running_backend(path: str = "/auth/me") -> AsyncIterator[Backend]:
    """Run a backend with this one route."""
    backend = Backend()
    app = Starlette(routes=[Route(path, backend.handle), Route("/elsewhere", backend.handle)])
    sock = bind("127.0.0.1:0", setting="the test's backend")
    server = HttpServer(app, sock)
    running = asyncio.create_task(server.run())
    await server.started()
    backend.url = f"http://127.0.0.1:{bound_port(sock)}{path}"
    try:
        yield backend
    finally:
        backend.release()
        server.stop()
        await running


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
