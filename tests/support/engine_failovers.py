"""The faults of an engine in which another server becomes the master. See `engine_faults`."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from tests.support.engine_faults import Fault, start
from tests.support.engine_invariants import Nodes, at_last
from tests.support.engine_pairs import SERVICE, Servers, has, is_followed
from tests.support.engines import EngineServer, lossy_link, until


async def failover_to_a_replica_that_lags(servers: Servers, nodes: Nodes) -> None:
    async with replicated(servers, nodes) as cut_off:
        cut_off()
        for _ in range(3):
            await nodes.round()
        servers.replica.run("REPLICAOF", "NO", "ONE")
        async with nodes.busy():
            servers.master.stop()
            nodes.go_to(servers.replica.port)
            await nodes.more()


@contextlib.asynccontextmanager
async def replicated(servers: Servers, nodes: Nodes) -> AsyncIterator[Callable[[], None]]:
    """Let the replica have everything. What is yielded cuts it off from the master, and both go on."""
    async with lossy_link(servers.master.port) as link:
        await servers.replicate(link.port)
        await nodes.round()
        await until(lambda: offset(servers.replica) == offset(servers.master))
        yield lambda: link.swallows.update(("requests", "replies"))


def offset(server: EngineServer) -> int:
    """Return how much of the master's data a server has."""
    replication = server.run("INFO", "replication")
    return int(replication.get("slave_repl_offset", replication["master_repl_offset"]))


async def two_failovers_around_an_idle_connection(servers: Servers, nodes: Nodes) -> None:
    await servers.replicate()
    await nodes.round()
    for old, new in ((servers.master, servers.replica), (servers.replica, servers.master)):
        await until(partial(is_followed, old))
        old.run("FAILOVER", "TO", "127.0.0.1", new.port)
        await until(partial(has, new, role="master"))
        await until(partial(has, old, master_link_status="up"))


async def old_master_back_as_replica(servers: Servers, nodes: Nodes) -> None:
    """A node that still goes to the old master is blind, though it can read there."""
    await servers.replicate()
    async with nodes.busy():
        servers.master.stop()
        servers.replica.run("REPLICAOF", "NO", "ONE")
        nodes.links[1].target = servers.replica.port
        servers.master.arguments = ("--replicaof", "127.0.0.1", str(servers.replica.port))
        await start(servers.master)
        await until(partial(has, servers.master, master_link_status="up"))
        await nodes.until(lambda: nodes.states[0].is_blind)
        nodes.go_to(servers.replica.port)
        await nodes.more()


async def two_masters(servers: Servers, nodes: Nodes, *, are_replicas_demanded: bool = True) -> None:
    """The network splits: a node stays with the old master, the other one goes to the new one.

    With `min-replicas-to-write` the old one refuses writes after `min-replicas-max-lag` and two seconds at most. Leases
    and results of this time, which the new one never hears of, count there when their node comes to it.
    """
    run = servers.master.run
    async with replicated(servers, nodes) as cut_off:
        await nodes.round()
        await nodes.settled()
        cut_off()
        if are_replicas_demanded:
            await nodes.logins.hold()
            await nodes.logins.round()
            run("CONFIG", "SET", "min-replicas-max-lag", 1)
            run("CONFIG", "SET", "min-replicas-to-write", 1)
            await until(lambda: refuses_writes(servers.master), every_s=0.1)
            await nodes.cut_off(0)
        servers.replica.run("REPLICAOF", "NO", "ONE")
        nodes.go_to(servers.replica.port, only=1)
        while not await nodes.revoke(1):  # noqa: ASYNC110  # its connection breaks
            await asyncio.sleep(0.01)
        for number in range(3):
            await nodes.claim(f"split-{number}", time.time() + 5)
        if are_replicas_demanded:
            await at_last(partial(nodes.families[1].find, b""))  # its connection breaks too
            await nodes.logins.hold(1)
            await nodes.logins.try_held()
        servers.master.run("REPLICAOF", "127.0.0.1", servers.replica.port)
        nodes.go_to(servers.replica.port)


def refuses_writes(server: EngineServer) -> bool:
    """Tell whether a master may not write, because it has too few replicas."""
    replication = server.run("INFO", "replication")
    return int(replication["min_slaves_good_slaves"]) < 1


async def two_masters_that_demand_no_replica(servers: Servers, nodes: Nodes) -> None:
    await two_masters(servers, nodes, are_replicas_demanded=False)


async def sentinel_failover(servers: Servers, nodes: Nodes) -> None:
    """Somebody asks for it. The old master goes on for seconds, and a node that starts is with the new one."""
    await followed_failover(servers, nodes, lambda sentinel: sentinel.run("SENTINEL", "FAILOVER", SERVICE))


async def sentinel_failover_that_the_old_master_ignores(servers: Servers, nodes: Nodes) -> None:
    """The Sentinel can't make it a replica, so it goes on as a master however slow the machine is."""
    servers.master.run("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
    await sentinel_failover(servers, nodes)


async def sentinel_after_kill(servers: Servers, nodes: Nodes) -> None:
    """The Sentinel finds the master dead."""
    await followed_failover(servers, nodes, lambda _sentinel: servers.master.stop())


async def followed_failover(servers: Servers, nodes: Nodes, begin: Callable[[EngineServer], object]) -> None:
    """Check that all connections of both nodes follow the Sentinel, and that no token is used at both masters.

    Nobody logs in: a log-in at one master whose first refresh goes to the other one is the exception of the reference.
    """
    sentinel = servers.sentinel
    assert sentinel is not None
    new = str(servers.replica.port).encode()

    def is_named() -> bool:
        return sentinel.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1] in (new, int(new))

    async with nodes.busy(is_logging_in=False):
        await nodes.more()
        begin(sentinel)
        await until(is_named, every_s=0.05)
        later = await nodes.start_another()
        with contextlib.suppress(TimeoutError):  # then what follows shows it
            await until(lambda: is_left(servers.master), within_s=nodes.within_s["E"], every_s=0.05)
        for token in (f"split-{number}" for number in itertools.count()):
            if None not in await nodes.claim(token, time.time() + 5, nodes=(0, 1, later)):
                break
        nodes.check_uses()  # now: with two masters, the values of the nodes differ as well
        await nodes.more()


def is_left(server: EngineServer) -> bool:
    """Tell whether no node is connected to a server any more. The Sentinel is, and who asks."""
    if server.process is None:
        return True
    clients = str(server.run("CLIENT", "LIST", "TYPE", "normal"))
    return all(f"cmd={name}" not in clients for name in ("evalsha", "xread", "hmget", "time", "hdel"))


BY_SENTINEL: list[Fault] = [
    sentinel_failover,
    sentinel_failover_that_the_old_master_ignores,
    sentinel_after_kill,
]
"""In these the nodes ask a Sentinel for the master."""


async def ten_thousand_clients_after_a_failover(servers: Servers, nodes: Nodes) -> None:
    """Each comes with a new token until it is admitted, to any node, while publications go on."""
    await servers.replicate()
    servers.master.stop()
    servers.replica.run("REPLICAOF", "NO", "ONE")
    nodes.go_to(servers.replica.port)

    async def client(number: int) -> None:
        for attempt in range(1000):
            token = f"client-{number}-{attempt}"
            (answer,) = await nodes.claim(token, time.time(), nodes=(random.randrange(2),))
            if answer is True:
                return
            await asyncio.sleep(1 + random.random())  # as clients do after a 503
        raise AssertionError("G: a client was never admitted")

    async with nodes.busy():
        await asyncio.gather(*(client(number) for number in range(10_000)))
