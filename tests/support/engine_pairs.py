"""A master and a replica for tests that break them and let them take each other's place."""

from dataclasses import dataclass
from functools import partial

from tests.support.engines import EngineServer, until
from tests.support.moved_clock import MovedClock


@dataclass
class Servers:
    """A master and a replica, which take each other's place, and the clock of both."""

    master: EngineServer
    replica: EngineServer
    clock: MovedClock

    def reset(self) -> None:
        """Make both well again: two masters without data."""
        self.clock.move(0)
        for server in (self.master, self.replica):
            server.arguments = ()
            if server.process is None:
                server.start()
            server.run("CONFIG", "SET", "appendonly", "no")
            server.run("REPLICAOF", "NO", "ONE")
            server.run("FLUSHALL")

    async def replicate(self) -> None:
        """Let the replica follow the master, and wait until it has all data."""
        self.replica.run("REPLICAOF", "127.0.0.1", self.master.port)
        await until(partial(has, self.replica, master_link_status="up"))


def has(server: EngineServer, **wanted: str) -> bool:
    """Tell whether a server says this of its replication."""
    told = server.run("INFO", "replication")
    return all(told.get(name) == value for name, value in wanted.items())


def is_followed(server: EngineServer) -> bool:
    """Tell whether a master has a replica that gets its data."""
    replica = server.run("INFO", "replication").get("slave0")
    return replica is not None and replica["state"] == "online"
