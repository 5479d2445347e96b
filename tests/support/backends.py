"""Backends for tests: the demo's own as a process, a uvicorn that a test controls, and one that sends raw bytes."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.net.sockets import bind, bound_port
from relay.web.uvicorn_runner import HttpServer
from tests.support import preloaded
from tests.support.certificates import Pair
from tests.support.ports import free_ports
from tests.support.preloaded import EVEN_PRIORITY
from tests.support.relay_process import SECRET


@contextlib.contextmanager
def demo_backend(folder: Path) -> Iterator[str]:
    """Run the demo's backend, which signs with the same secret as the tests' sessions; gives its origin."""
    secret = folder / "backend-secret"
    secret.write_text(SECRET)
    process = preloaded.start(
        *("relay.demo.backend", "--port", "0", "--secret-file", str(secret)),
        environment=os.environ | {"PYTHONPATH": EVEN_PRIORITY},
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(15)
        process.stdout.close()


class ScriptedBackend:
    """An HTTP server that answers each request with the same prepared bytes, or never; with a certificate, by TLS."""

    def __init__(self, certificate: Pair | None = None) -> None:
        [self.port] = free_ports(1)
        self.requests: list[bytes] = []
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate.cert, certificate.key)

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def answering(
        self, answer: bytes | Callable[[], bytes], *, drip_s: float | None = None, hang: bool = False
    ) -> AsyncIterator[None]:
        """Answer with these bytes, or with those that are made then.

        With `drip_s` each byte comes so many seconds after the last one. `hang` leaves the connection open after them.
        """
        self.requests.clear()

        handlers: set[asyncio.Task[None]] = set()

        async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
            self.requests.append(head + await reader.readexactly(length))
            whole = answer if isinstance(answer, bytes) else answer()
            for piece in [whole] if drip_s is None else [bytes([byte]) for byte in whole]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(drip_s or 0)  # being slow is the behaviour that is played here
            if hang:
                await reader.read()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await answer_one(reader, writer)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.add(asyncio.create_task(serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", self.port, ssl=self._tls)
        try:
            yield
        finally:
            server.close()
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers)


class KeepAliveBackend:
    """An HTTP server that keeps its connections, and plays one step of its script for each request.

    A step is an answer, whose connection stays open, or an end: these bytes and then the end of the connection, with a
    reset if `reset` is true. `requests` has the number of the connection and the bytes of each request.
    """

    def __init__(self, *script: "bytes | End") -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.origin = ""
        self._script = list(script)
        self._connections = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["KeepAliveBackend"]:
        """Serve until the script is no longer needed."""
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            self._connections += 1
            number = self._connections
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
                    self.requests.append((number, head + await reader.readexactly(length)))
                    step = self._script.pop(0)
                    writer.write(step.data if isinstance(step, End) else step)
                    if isinstance(step, End):
                        await writer.drain()
                        if step.reset:
                            linger = struct.pack("ii", 1, 0)  # no FIN: the other side gets "connection reset"
                            writer.get_extra_info("socket").setsockopt(
                                socket.SOL_SOCKET, socket.SO_LINGER, linger
                            )
                        break
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for writer in writers:
                writer.close()
            await server.wait_closed()


@dataclass(frozen=True, slots=True)
class End:
    """The end of a connection, after these bytes."""

    data: bytes = b""
    reset: bool = False


def kept_answer(status: int, body: Any, *headers: str) -> bytes:
    """Return an HTTP response after which the connection stays open."""
    return http_answer(status, body, *headers).replace(b"Connection: close\r\n", b"")


def http_answer(status: int, body: Any, *headers: str) -> bytes:
    """Return an HTTP response; anything but bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


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
