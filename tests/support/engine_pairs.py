"""A master and a replica for tests that break them and let them take each other's place."""

import contextlib
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.engines import EngineServer, engine_server, until
from tests.support.moved_clock import MovedClock
from tests.support.ports import free_ports

_SETTINGS = {
    "appendonly": "no",
    "min-replicas-to-write": "0",
    "min-replicas-max-lag": "10",
    "busy-reply-threshold": "5000",
}
SERVICE = "prices"
"""The name of the master for its Sentinel."""


@dataclass
class Servers:
    """A master and a replica, which take each other's place, and the clock of both."""

    master: EngineServer
    replica: EngineServer
    clock: MovedClock
    sentinel: EngineServer | None = None

    def reset(self) -> None:
        """Make both well again: two masters without data."""
        self.clock.move(0)
        for server in (self.master, self.replica):
            server.arguments = ()
            if server.process is None:
                server.start()
            for name, value in _SETTINGS.items():
                server.run("CONFIG", "SET", name, value)
            server.run("ACL", "SETUSER", "default", "+@all")
            server.run("REPLICAOF", "NO", "ONE")
            server.run("FLUSHALL")

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[EngineServer]:
        """Let the replica follow the master, and run a Sentinel that watches both."""
        await self.replicate()
        sentinel = EngineServer(self.master.program, Path(tempfile.mkdtemp()), free_ports(1)[0])
        (sentinel.folder / "sentinel.conf").write_text(
            f"port {sentinel.port}\nbind 127.0.0.1\ndir {sentinel.folder}\nlogfile {sentinel.folder}/sentinel.log\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 3000\n"
        )
        command = [sentinel.program, str(sentinel.folder / "sentinel.conf"), "--sentinel"]
        sentinel.process = subprocess.Popen(command)  # noqa: ASYNC220  # it returns at once
        try:
            sentinel.wait()
            self.sentinel = sentinel
            await until(
                lambda: b"ok" in str(sentinel.run("SENTINEL", "REPLICAS", SERVICE)).encode(), every_s=0.05
            )
            yield sentinel
        finally:
            sentinel.stop()
            shutil.rmtree(sentinel.folder)

    async def replicate(self, port: int = 0) -> None:
        """Let the replica follow the master, over `port` if one is given, and wait until it has all data."""
        self.replica.run("REPLICAOF", "127.0.0.1", port or self.master.port)
        await until(partial(has, self.replica, master_link_status="up"))


class Pairs:
    """Pairs of servers for tests that run at the same time. A pair is used again after a test that passed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: dict[str, queue.SimpleQueue[Servers]] = {}
        self._stack = contextlib.ExitStack()
        self._starting = threading.Lock()
        self._clock: MovedClock | None = None

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[Servers]:
        """Lend a pair of a kind that nobody else has now."""
        with self._starting:
            free = self._free.setdefault(kind, queue.SimpleQueue())
            try:
                servers = free.get_nowait()
            except queue.Empty:
                servers = self._start(kind)
        servers.reset()
        yield servers
        free.put(servers)

    def _start(self, kind: str) -> Servers:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        clock = self._clock = MovedClock(folder, like=self._clock)
        both: list[EngineServer] = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            server = engine_server(kind, folder / name, environment=clock.environment)
            both.append(self._stack.enter_context(server))
        return Servers(both[0], both[1], clock)

    def close(self) -> None:
        """End all servers."""
        self._stack.close()


def has(server: EngineServer, **wanted: str) -> bool:
    """Tell whether a server says this of its replication."""
    told = server.run("INFO", "replication")
    return all(told.get(name) == value for name, value in wanted.items())


def is_followed(server: EngineServer) -> bool:
    """Tell whether a master has a replica that gets its data."""
    replica = server.run("INFO", "replication").get("slave0")
    return replica is not None and replica["state"] == "online"
