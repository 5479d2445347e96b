"""The faults of an engine, each done to real servers while two nodes work (`tests/engine/test_faults.py`).

Those in which another server becomes the master are in `engine_failovers`.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tests.support.engine_invariants import CHANNELS, Nodes, at_last
from tests.support.engine_pairs import Servers
from tests.support.engines import EngineServer, until

Fault = Callable[[Servers, Nodes], Awaitable[None]]

APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")
HOUR = 3600
LOG_BYTES = 256 << 10
"""The log of the nodes under test: so short that a test can fill it."""


# the server ends and begins


async def start(server: EngineServer) -> None:
    """Start a server, while the nodes go on."""
    await asyncio.to_thread(server.start)


async def start_empty(server: EngineServer) -> None:
    """Start a server without a file of its data."""
    await start(server)
    assert not server.run("INFO", "persistence")["rdb_last_load_keys_loaded"], "it has read a file"


async def restart_empty(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.stop()
        await nodes.failing()
        await start_empty(servers.master)


async def restart_with_its_file(servers: Servers, nodes: Nodes) -> None:
    await keep_file(servers.master)
    async with nodes.busy():
        await nodes.more()
        servers.master.stop()
        await start(servers.master)
        await nodes.more()


async def restart_that_loads_for_long(servers: Servers, nodes: Nodes) -> None:
    """It answers LOADING until it has read its file."""
    await keep_file(servers.master)
    with servers.master.client() as client, client.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"other:{number}", "")
        pipeline.execute()
    servers.master.arguments = (*APPEND_ONLY, "--key-load-delay", "200")  # microseconds a command
    async with nodes.busy():
        servers.master.stop()
        starting = asyncio.create_task(start(servers.master))
        while not await asyncio.to_thread(is_loading, servers.master):  # noqa: ASYNC110  # as it starts
            await asyncio.sleep(0.01)
        await nodes.failing()
        assert await asyncio.to_thread(is_loading, servers.master)
        await asyncio.to_thread(servers.master.run, "CONFIG", "SET", "key-load-delay", 0)
        await starting
        await nodes.more()


def is_loading(server: EngineServer) -> bool:
    """Tell whether a server reads its file. It answers INFO all the same."""
    from redis import exceptions

    with contextlib.suppress(exceptions.ConnectionError), server.client() as client:
        return bool(client.execute_command("INFO", "persistence")["loading"])
    return False


async def keep_file(server: EngineServer) -> None:
    """Let a server write its data to a file from now on, and read it when it starts."""
    server.arguments = APPEND_ONLY
    server.run("CONFIG", "SET", "appendonly", "yes")
    await until(lambda: not server.run("INFO", "persistence")["aof_rewrite_in_progress"])


async def clean_restart(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.stop(signal.SIGTERM)
        await start(servers.master)
        await nodes.more()


async def stopped(seconds: float, servers: Servers, nodes: Nodes) -> None:
    """The server stands still, and its kernel goes on to accept connections and requests."""
    assert servers.master.process is not None
    async with nodes.busy():
        servers.master.process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        await nodes.blind()
        await nodes.failing()
        await until(lambda: time.monotonic() - stopped_at > seconds)
        servers.master.process.send_signal(signal.SIGCONT)
        await nodes.more()


async def stopped_for_4_s(servers: Servers, nodes: Nodes) -> None:
    await stopped(4, servers, nodes)


async def stopped_for_12_s(servers: Servers, nodes: Nodes) -> None:
    await stopped(12, servers, nodes)


# the server loses data, or forgets


async def script_flush(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        for _ in range(3):
            servers.master.run("SCRIPT", "FLUSH")
            await nodes.more(2)


async def flushall(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.run("FLUSHALL")
        await nodes.more()


async def flushall_twice(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        for _ in range(2):
            servers.master.run("FLUSHALL")
            await nodes.more(1)


async def flushall_without_traffic(servers: Servers, nodes: Nodes) -> None:
    servers.master.run("FLUSHALL")
    nodes.newest = {}
    await nodes.check(publishing=False)


async def node_behind_the_log(servers: Servers, nodes: Nodes) -> None:
    """A node hears nothing for so long that the logs do not reach back to its last entry."""
    key, run = nodes.options.key, servers.master.run
    nodes.links[1].swallows = {"requests", "replies"}
    await nodes.until(lambda: nodes.states[1].is_blind)
    newest = int(run("HGET", key("t.0", "e"), "b"))
    await nodes.remove(0, "latest.b")

    def is_cut() -> bool:
        ((entry, _),) = run("XRANGE", key("t.0", "l"), "-", "+", "COUNT", 1)
        return int(entry.partition(b"-")[2]) > newest + 1

    while not is_cut():
        many = [nodes.publish(0, name) for name in ("latest.a", "stream.a") for _ in range(500)]
        await asyncio.gather(*many)
    for _ in range(3):
        await nodes.revoke(0)
    run("XTRIM", key("c", "l"), "MAXLEN", 1)  # as 10,000 later revocations do
    nodes.links[1].swallows = set()
    await nodes.check(publishing=False)
    assert nodes.brokers[1].resyncs
    assert nodes.states[1].resyncs


# clocks


async def engine_ahead_for_a_moment(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        keys = servers.master.run("KEYS", "*")
        servers.clock.move(HOUR)
        servers.master.run("EXISTS", *keys)  # which removes those whose time seems to be over
        await nodes.more()
        servers.clock.move(0)
        await nodes.more()


async def engine_back_for_a_moment(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.clock.move(-HOUR)
        await nodes.more()
        servers.clock.move(0)
        await nodes.more()


async def engine_off_for_good(seconds: int, servers: Servers, nodes: Nodes) -> None:
    """All but claims and leases goes on, until somebody sets the clock right."""
    servers.clock.move(seconds)
    await nodes.until(lambda: all(abs(state.offset.seconds) > HOUR / 2 for state in nodes.states))
    async with nodes.wrong_clocks(0, 1):
        async with nodes.busy():
            await nodes.more(10)
        await nodes.check()
    servers.clock.move(0)


async def engine_ahead_for_good(servers: Servers, nodes: Nodes) -> None:
    await engine_off_for_good(HOUR, servers, nodes)


async def engine_back_for_good(servers: Servers, nodes: Nodes) -> None:
    await engine_off_for_good(-HOUR, servers, nodes)


async def empty_with_a_wrong_clock(seconds: int, servers: Servers, nodes: Nodes) -> None:
    """A life begins at a wrong time."""
    async with nodes.busy():
        servers.master.stop()
        servers.clock.move(seconds)
        await start_empty(servers.master)
        for node in (0, 1):
            await nodes.answered_claim(node)
            await at_last(partial(nodes.families[node].find, b""))
        await nodes.more()
        servers.clock.move(0)
        await nodes.more()


async def empty_an_hour_back(servers: Servers, nodes: Nodes) -> None:
    await empty_with_a_wrong_clock(-HOUR, servers, nodes)


async def empty_an_hour_ahead(servers: Servers, nodes: Nodes) -> None:
    await empty_with_a_wrong_clock(HOUR, servers, nodes)


async def node_off(seconds: float, nodes: Nodes) -> None:
    """The node may not claim, and everything else goes on."""
    nodes.clocks[0] = seconds
    async with nodes.wrong_clocks(0):
        async with nodes.busy():
            await nodes.more(10)
        await nodes.check()
    nodes.clocks[0] = 0.0


async def node_5_s_ahead(_servers: Servers, nodes: Nodes) -> None:
    await node_off(5, nodes)


async def node_5_s_back(_servers: Servers, nodes: Nodes) -> None:
    await node_off(-5, nodes)


# the network


async def connections_killed_in_a_loop(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        for _ in range(20):
            servers.master.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await nodes.more(1)


async def black_hole(nodes: Nodes, *directions: str) -> None:
    async with nodes.busy():
        for link in nodes.links:
            link.swallows = set(directions)
        await nodes.blind()
        await nodes.failing()
        for link in nodes.links:
            link.swallows = set()
        await nodes.more()


async def black_hole_both_ways(_servers: Servers, nodes: Nodes) -> None:
    await black_hole(nodes, "requests", "replies")


async def black_hole_for_replies(_servers: Servers, nodes: Nodes) -> None:
    await black_hole(nodes, "replies")


async def black_hole_for_requests(_servers: Servers, nodes: Nodes) -> None:
    await black_hole(nodes, "requests")


async def delay_of_200_ms(_servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        nodes.links[0].delay_s = 0.2
        await nodes.more()
        nodes.links[0].delay_s = 0


async def silent_connections(_servers: Servers, nodes: Nodes) -> None:
    """Each connection is dead without a word, and new ones work."""
    for link in nodes.links:
        link.silence()
    await nodes.round()


# the server refuses


async def busy_script(servers: Servers, nodes: Nodes) -> None:
    servers.master.run("CONFIG", "SET", "busy-reply-threshold", "20")

    def run_without_end() -> None:
        with contextlib.suppress(Exception):
            servers.master.run("EVAL", "while true do end", 0)

    async with nodes.busy():
        blocking = asyncio.create_task(asyncio.to_thread(run_without_end))
        await nodes.failing()
        servers.master.run("SCRIPT", "KILL")
        await blocking
        await nodes.more()


async def password_changed(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        with servers.master.client() as client:  # it stays logged in
            client.execute_command("CONFIG", "SET", "requirepass", "secret")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await nodes.blind()
            client.execute_command("CONFIG", "SET", "requirepass", "")
        await nodes.more()


async def full_memory(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.run("CONFIG", "SET", "maxmemory", "1")
        await nodes.failing()
        servers.master.run("CONFIG", "SET", "maxmemory", "0")
        await nodes.more()


async def read_only(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.run("REPLICAOF", "127.0.0.1", "1")
        await nodes.failing()
        servers.master.run("REPLICAOF", "NO", "ONE")
        await nodes.more()


# single replies, tasks and callers


def lost_reply(name: str) -> Fault:
    """Return the fault that the reply to a script is lost."""

    async def fault(servers: Servers, nodes: Nodes) -> None:
        marker = nodes.script(name).sha.encode()
        link = nodes.links[0]
        if name == "families":
            for lost, operation in enumerate((b"begin", b"take", b"complete")):
                link.lose_reply_to(operation)
                while link.lost == lost:
                    await nodes.logins.round()
            return
        if name in ("load", "control"):  # a node calls them when it starts, and after a loss
            link.lose_reply_to(marker)
            async with nodes.busy():
                servers.master.run("FLUSHALL")
                await nodes.until(lambda: link.lost)
            return
        for _ in range(3):
            before = link.lost
            link.lose_reply_to(marker)
            if name == "claim":
                await nodes.claim(f"lost-{before}", time.time(), nodes=(0,))
            elif name == "publish":
                await nodes.publish(0, CHANNELS[before])
            else:
                await nodes.revoke(0)
            assert link.lost == before + 1

    fault.__name__ = f"lost_reply_to_{name}"
    return fault


async def fault_in_a_task(_servers: Servers, nodes: Nodes) -> None:
    reader = nodes.brokers[0].shards[0]._reader
    assert reader is not None
    accept = reader._accept

    def failing(_generation: int, _number: int, _fields: Any) -> None:
        reader._accept = accept
        raise ZeroDivisionError("injected")

    reader._accept = failing
    await nodes.round()


async def cancelled_callers(_servers: Servers, nodes: Nodes) -> None:
    await nodes.cancelled_callers(300)
