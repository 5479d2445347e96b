"""A cluster as the engine: faults of real masters under load, with the same checks as those of one server."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from msgspec import Raw

from relay.core.errors import ConfigurationError, MalformedError
from relay.core.publications import Draft
from relay.engine.broker import EngineBroker
from relay.engine.health import Health
from relay.engine.probe import probe
from relay.engine.scripts import script
from relay.engine.shards import SHARDS, place, shard_names, slot_of
from tests.support.engine_cluster import MASTERS, EngineCluster, engine_cluster, name_of
from tests.support.engine_controls import lines
from tests.support.engine_faults import node_off
from tests.support.engine_invariants import Hub, Nodes, engine_tasks
from tests.support.engines import EngineServer, LossyLink, until


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineCluster]:
    """Three masters and three replicas, which take each other's place."""
    with engine_cluster(tmp_path_factory.mktemp("cluster"), replicas=True) as cluster:
        yield cluster


@pytest.fixture
async def nodes(own_cluster: EngineCluster) -> AsyncIterator[Nodes]:
    """Two nodes that work. After the fault everything holds, and no task is left."""
    async with working(own_cluster) as both:
        yield both


@pytest.fixture
async def linked_nodes(own_cluster: EngineCluster) -> AsyncIterator[Nodes]:
    """The same, with a link to each server that a test may break."""
    async with own_cluster.linked() as links, working(own_cluster, links) as both:
        yield both


@contextlib.asynccontextmanager
async def working(cluster: EngineCluster, links: Sequence[LossyLink] = ()) -> AsyncIterator[Nodes]:
    """Let two nodes work. At the end everything holds, and no task is left."""
    options = cluster.options()
    both = Nodes([options, options], links)
    await both.open()
    yield both
    async with asyncio.timeout(120):
        await until(cluster.is_replicated)
        await both.check()
    await both.close()
    assert engine_tasks() == []


def shard_of(channel: str) -> str:
    """Return the shard of a channel."""
    return shard_names("t", SHARDS)[place(channel, SHARDS)]


def master_of(cluster: EngineCluster, shard: str) -> EngineServer:
    """Return the master of a shard."""
    master = cluster.master_of(shard)
    assert master is not None
    return master


def begin_to_move(slot: int, old: EngineServer, new: EngineServer) -> None:
    """Let two masters know that a slot is being moved."""
    new.run("CLUSTER SETSLOT", slot, "IMPORTING", name_of(old))
    old.run("CLUSTER SETSLOT", slot, "MIGRATING", name_of(new))


def move(key: str | bytes, old: EngineServer, new: EngineServer) -> None:
    """Move a key."""
    assert old.run("MIGRATE", "127.0.0.1", new.port, key, 0, 5000) == b"OK"


@pytest.mark.parametrize("shard", ["c", shard_of("stream.a")])
async def test_a_master_is_killed_and_its_replica_takes_its_place(
    own_cluster: EngineCluster, nodes: Nodes, shard: str
) -> None:
    """Of the revocations, and of a channel. The old master comes back as the replica."""
    master = master_of(own_cluster, shard)
    async with nodes.busy():
        await nodes.more()
        master.stop()
        await until(lambda: own_cluster.master_of(shard) is not None and own_cluster.is_well())
        await nodes.more()
        await asyncio.to_thread(master.start)
        await until(own_cluster.is_replicated)
        await nodes.more()
    assert own_cluster.master_of(shard) is not master


@pytest.mark.parametrize("shard", ["c", shard_of("stream.a")])
async def test_a_master_stands_still_until_its_replica_has_its_place(
    own_cluster: EngineCluster, nodes: Nodes, shard: str
) -> None:
    """Its connections stay open. When it goes on, it takes itself for the master for a moment."""
    master = master_of(own_cluster, shard)
    replica = own_cluster.replica_of(master)
    assert master.process is not None
    async with nodes.busy():
        await nodes.more()
        master.process.send_signal(signal.SIGSTOP)
        try:
            await until(lambda: replica.run("INFO", "replication")["role"] == "master")
            await nodes.more()
        finally:
            master.process.send_signal(signal.SIGCONT)
        await until(own_cluster.is_replicated)
        await nodes.more()
    assert own_cluster.master_of(shard) is replica


async def test_a_slot_is_moved_while_it_is_published_to(own_cluster: EngineCluster, nodes: Nodes) -> None:
    """Key by key, as redis-cli moves it: scripts fail before they write, and wait until the slot has moved."""
    shard = shard_of("stream.a")
    slot, old = slot_of(shard), master_of(own_cluster, shard)
    others = (master_of(own_cluster, name) for name in shard_names("t", SHARDS))
    new = next(one for one in others if one not in (old, master_of(own_cluster, "c")))
    async with nodes.busy():
        await nodes.more()
        begin_to_move(slot, old, new)
        await nodes.failing()
        while keys := old.run("CLUSTER GETKEYSINSLOT", slot, 1):
            move(keys[0], old, new)
            await asyncio.sleep(0.01)
        for server in (new, old):
            server.run("CLUSTER SETSLOT", slot, "NODE", name_of(new))
        await nodes.more()
    await until(lambda: own_cluster.master_of(shard) is new)


@pytest.mark.parametrize("is_guarded", [True, False])
async def test_a_move_that_is_given_up_leaves_no_half_of_a_script(
    own_cluster: EngineCluster, *, is_guarded: bool
) -> None:
    """The keys that the script names have not moved, and a history has. So it would be executed up to that history.

    Without the guard's key it is: the history of another channel of the batch has a message that nobody published, and
    takes no other one for its number.
    """
    nodes = Nodes([own_cluster.options()] * 2)
    await nodes.open()
    if not is_guarded:
        for line in lines(nodes):
            line._guard = []
    shard = shard_of("stream.a")
    other = next(name for name in map("stream.{}".format, range(1000)) if shard_of(name) == shard)
    for value, name in enumerate(
        ("stream.a", other), start=-2
    ):  # with a version, so that each key that the script names exists
        versioned = Draft(channel=name, data=Raw(b"%d" % value), version=1, version_epoch=0)
        await nodes.brokers[0].publish(versioned, ts=1)
    slot, old = slot_of(shard), master_of(own_cluster, shard)
    masters = (master_of(own_cluster, name) for name in shard_names("t", SHARDS))
    new = next(one for one in masters if one is not old)
    history = nodes.options.key(shard, "h") + ":stream.a"
    begin_to_move(slot, old, new)
    move(history, old, new)
    assert not any(await asyncio.gather(nodes.publish(0, other), nodes.publish(0, "stream.a")))
    old.run("CLUSTER SETSLOT", slot, "STABLE")
    move(history, new, old)
    new.run("CLUSTER SETSLOT", slot, "STABLE")
    assert await nodes.publish(0, other) == is_guarded
    if is_guarded:
        await nodes.check()
    await nodes.close()


@pytest.mark.parametrize("shard", ["c", shard_of("stream.a")])
async def test_a_replica_takes_over_in_order(own_cluster: EngineCluster, nodes: Nodes, shard: str) -> None:
    """As when a service is updated, one server after the other."""
    master = master_of(own_cluster, shard)
    replica = own_cluster.replica_of(master)
    async with nodes.busy():
        await nodes.more()
        replica.run("CLUSTER FAILOVER")
        await until(lambda: own_cluster.master_of(shard) is replica and own_cluster.is_replicated())
        await nodes.more()


async def test_connections_are_killed_in_a_loop(own_cluster: EngineCluster, nodes: Nodes) -> None:
    """Of all servers."""
    async with nodes.busy():
        for _ in range(5):
            for server in own_cluster.servers:
                server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await nodes.more(1)


async def test_replies_are_lost(linked_nodes: Nodes) -> None:
    """One to each script that has many callers. A claim is no replay, and a publication keeps its position."""
    nodes = linked_nodes
    async with nodes.busy():
        for name in ("publish", "claim", "revoke", "families"):
            lost = sum(link.lost for link in nodes.links)
            for link in nodes.links:
                link.lose_reply_to(script(name).sha.encode())
            await nodes.until(lambda before=lost: sum(link.lost for link in nodes.links) > before)
            for link in nodes.links:
                link.lose_reply_to(b"")
            await nodes.more()


async def test_servers_are_behind_a_black_hole(linked_nodes: Nodes) -> None:
    """In one direction, or in both: no connection is closed, and nothing comes through."""
    nodes = linked_nodes
    async with nodes.busy():
        await nodes.more()
        for directions in ({"requests"}, {"replies"}, {"requests", "replies"}):
            for link in nodes.links:
                link.swallows = directions
            await nodes.blind()
            await nodes.failing()
            for link in nodes.links:
                link.swallows = set()
            await nodes.more()


async def test_replies_take_200_ms_and_then_connections_are_dead(linked_nodes: Nodes) -> None:
    """Everything goes on, and dead connections are replaced."""
    nodes = linked_nodes
    async with nodes.busy():
        for link in nodes.links:
            link.delay_s = 0.2
        await nodes.more()
        for link in nodes.links:
            link.delay_s = 0
            link.silence()
        await nodes.more()


async def test_the_memory_of_a_master_is_full(own_cluster: EngineCluster, nodes: Nodes) -> None:
    """Its channels get errors, and those of the others are published."""
    master = master_of(own_cluster, shard_of("stream.a"))
    async with nodes.busy():
        master.run("CONFIG", "SET", "maxmemory", 1)
        await nodes.failing()
        await nodes.more()
        master.run("CONFIG", "SET", "maxmemory", 0)
        await nodes.more()


async def test_the_clock_of_a_node_is_wrong(nodes: Nodes) -> None:
    """It gets no claim from any shard, and everything else goes on."""
    await node_off(5, nodes)


async def test_a_master_loses_its_data(own_cluster: EngineCluster, nodes: Nodes) -> None:
    """The shards of the others keep their epochs."""
    old = [shard.epoch for shard in nodes.brokers[0].shards]
    async with nodes.busy():
        await nodes.more()
        lost = master_of(own_cluster, "c")
        lost.run("FLUSHALL")
        await nodes.more()
    expected = [own_cluster.master_of(shard.name) is lost for shard in nodes.brokers[0].shards]

    def has_new_epochs(broker: EngineBroker) -> bool:
        return [shard.epoch != epoch for shard, epoch in zip(broker.shards, old, strict=True)] == expected

    await until(lambda: all(map(has_new_epochs, nodes.brokers)))  # shards without traffic notice it too
    await until(lambda: nodes.brokers[0].epoch == nodes.brokers[1].epoch)


async def test_the_other_shards_go_on_without_a_master(own_cluster: EngineCluster, nodes: Nodes) -> None:
    """Its replica is away too. Its prices are stale, and its publishers get errors. The node stays ready."""
    state, shards = nodes.states[0], nodes.brokers[0].shards
    health = Health(
        control=state.pulse,
        writes=state.claims.writes,
        logs=[shard.pulse for shard in shards],
        offset=state.offset,
        blind_s=30,
        ready_after_s=1,
    )
    master = master_of(own_cluster, shard_of("stream.a"))
    gone = {number for number, one in enumerate(shards) if own_cluster.master_of(one.name) is master}
    assert 0 < len(gone) < SHARDS / 2
    replica = own_cluster.replica_of(master)
    replica.stop()
    master.stop()
    try:
        while await nodes.publish(0, "stream.a"):  # its connection has not broken yet
            pass
        assert await nodes.publish(0, "latest.a")
        assert await nodes.revoke(1)
        await until(lambda: health.silent_shards == gone)
        await until(lambda: health.stream_unready is health.ingest_unready is health.gate_closed is None)
        assert health.silent_shards == gone
    finally:
        await asyncio.to_thread(master.start)
        await asyncio.to_thread(replica.start)


async def test_the_bound_of_channels_holds_over_all_shards(own_cluster: EngineCluster) -> None:
    """A node counts what it knows of the other shards. A channel that is removed makes room in all of them."""
    broker, hub = EngineBroker(own_cluster.options(), max_channels=5), Hub()
    broker.attach(hub, after=(await broker.load()).delivery_position)
    names = [f"channel.{number}" for number in range(6)]
    assert len({place(name, SHARDS) for name in names}) > 2
    for name in names[:5]:
        await broker.publish(Draft(channel=name, data=Raw(b"1")), ts=1)
    await until(lambda: len(hub.last) == 5)
    with pytest.raises(MalformedError, match="There are 5 channels"):
        await broker.publish(Draft(channel=names[5], data=Raw(b"1")), ts=1)
    await broker.remove(names[0])
    await until(lambda: len(hub.last) == 4)
    await broker.publish(Draft(channel=names[5], data=Raw(b"1")), ts=1)
    assert {one.channel for one in (await broker.load()).values} == set(names[1:])
    await broker.aclose()


async def test_the_probe_names_what_is_wrong(own_cluster: EngineCluster) -> None:
    """A cluster that is named like a server, and one of whose servers may evict."""
    await probe(own_cluster.options())
    for server in own_cluster.servers[::MASTERS]:  # a master and a replica, or the other way round
        with pytest.raises(ConfigurationError, match=r"is a server of a cluster\. Use redis\+cluster://"):
            await probe(own_cluster.options(server.url))
    lax = master_of(own_cluster, "c")
    lax.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(
        ConfigurationError, match=f"server 127.0.0.1:{lax.port} has maxmemory-policy allkeys-lru"
    ):
        await probe(own_cluster.options())
    lax.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
