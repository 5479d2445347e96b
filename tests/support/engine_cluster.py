"""A cluster of real servers: three masters, and perhaps a replica of each."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from relay.engine.address import read_address
from relay.engine.options import EngineOptions
from relay.engine.shards import SLOTS, slot_of
from tests.support.engines import WITHIN_S, EngineServer, LossyLink, engine_server, lossy_link, until
from tests.support.ports import free_ports

MASTERS = 3
NODE_TIMEOUT_MS = 1000
"""How long a server is silent before the others take it for dead. The usual value is 15 s."""


class EngineCluster:
    """Servers that share out the slots. `servers` are the masters of the beginning, then their replicas.

    `buses` are the ports on which they talk to each other.
    """

    def __init__(self, servers: list[EngineServer], buses: list[int]) -> None:
        self.servers = servers
        self.buses = buses

    @property
    def url(self) -> str:
        """The setting `engine.url`."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers)}"

    def options(self, url: str = "", **changes: Any) -> EngineOptions:
        """Return options with a prefix of the test's own."""
        values: dict[str, Any] = {"prefix": f"t{secrets.token_hex(4)}"} | changes
        return EngineOptions(address=read_address(url or self.url), **values)

    @property
    def alive(self) -> list[EngineServer]:
        """The servers that run."""
        return [server for server in self.servers if server.process is not None]

    def master_of(self, shard: str) -> EngineServer | None:
        """Return the master of a shard, as the servers know it. None: they do not agree, or it is not there."""
        found = {self._master(slot_of(shard), server) for server in self.alive}
        ports = {server.port: server for server in self.alive}
        return ports.get(found.pop()) if len(found) == 1 else None

    @staticmethod
    def _master(slot: int, asked: EngineServer) -> int:
        told = asked.run("CLUSTER SLOTS")
        return next((int(master[1]) for first, last, master, *_ in told if first <= slot <= last), 0)

    def replica_of(self, master: EngineServer) -> EngineServer:
        """Return the replica of a master."""
        port = int(master.run("INFO", "replication")["slave0"]["port"])
        return next(server for server in self.servers if server.port == port)

    @contextlib.asynccontextmanager
    async def linked(self) -> AsyncIterator[list[LossyLink]]:
        """Announce links in the place of the servers, and yield them: nodes that ask for a master get its link."""
        async with contextlib.AsyncExitStack() as stack:
            links = [await stack.enter_async_context(lossy_link(server.port)) for server in self.servers]
            await self._announce([link.port for link in links])
            try:
                yield links
            finally:
                await self._announce([0] * len(links))

    async def _announce(self, ports: list[int]) -> None:
        wanted = {port or server.port for port, server in zip(ports, self.servers, strict=True)}
        for port, server in zip(ports, self.servers, strict=True):
            server.run("CONFIG", "SET", "cluster-announce-port", port)

        def named(asked: EngineServer) -> set[int]:
            return {int(one[1]) for _, _, *each in asked.run("CLUSTER SLOTS") for one in each}

        await until(lambda: all(named(server) == wanted for server in self.servers), every_s=0.05)

    def form(self) -> None:
        """Make one cluster of the servers that have just been started."""
        masters, replicas = self.servers[:MASTERS], self.servers[MASTERS:]
        for number, server in enumerate(masters):
            first, last = (part * SLOTS // MASTERS for part in (number, number + 1))
            server.run("CLUSTER ADDSLOTSRANGE", first, last - 1)
            server.run("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            server.run("CLUSTER MEET", "127.0.0.1", masters[0].port, self.buses[0])
        wait_for(self.is_well)
        for master, replica in zip(masters, replicas, strict=False):  # there may be none
            replica.run("CLUSTER REPLICATE", name_of(master))
        wait_for(self.is_replicated if replicas else self.is_well)

    def is_well(self) -> bool:
        """Tell whether all servers know each other, and each slot has a master that answers."""
        told = [server.run("CLUSTER INFO") for server in self.alive]
        return all(
            one["cluster_state"] == "ok" and int(one["cluster_known_nodes"]) == len(self.servers)
            for one in told
        )

    def is_replicated(self) -> bool:
        """Tell whether all servers run, and each master has a replica that gets its data."""
        return len(self.alive) == len(self.servers) and self.is_well() and all(map(_is_paired, self.servers))


def _is_paired(server: EngineServer) -> bool:
    told = server.run("INFO", "replication")
    if told["role"] == "master":
        return bool(told.get("slave0", {}).get("state") == "online")
    return bool(told["master_link_status"] == "up")


def name_of(server: EngineServer) -> str:
    """Return the name of a server in its cluster."""
    return str(server.run("CLUSTER MYID"), "ascii")


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the servers have agreed on something. They do not say when."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "the cluster was not made"
        time.sleep(0.02)


@contextlib.contextmanager
def engine_cluster(folder: Path, *, replicas: bool, kind: str = "redis") -> Iterator[EngineCluster]:
    """Run a cluster, with a replica of each master or without."""
    with contextlib.ExitStack() as stack:
        servers = []
        buses = free_ports(2 * MASTERS if replicas else MASTERS)
        for number, bus in enumerate(buses):
            own = folder / f"server-{number}"
            own.mkdir()
            arguments = (
                *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-require-full-coverage", "no"),
            )
            servers.append(stack.enter_context(engine_server(kind, own, *arguments)))
        cluster = EngineCluster(servers, buses)
        cluster.form()
        yield cluster
