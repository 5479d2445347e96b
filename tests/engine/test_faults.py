"""Every fault of the engine, done to a real server under load: what must hold after it (`engine_invariants`).

The second table takes one control away and does a fault: the check has to find it. So each control is needed, and the
check is able to see.
"""

import asyncio
import contextlib
import hashlib
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from relay.engine import broker, log_reader, scripts, state, tasks
from relay.engine.log_reader import LogReader
from relay.engine.state import EngineState
from tests.support.engine_invariants import CHANNELS, SETTLES_WITHIN_S, Nodes, engine_tasks
from tests.support.engine_pairs import Servers, has, is_followed
from tests.support.engines import EngineServer, engine_server, lossy_link, until
from tests.support.moved_clock import MovedClock

APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers that the faults of this module share."""
    kind = getattr(request, "param", "redis")
    folder = tmp_path_factory.mktemp(kind)
    clock = MovedClock(folder)
    with contextlib.ExitStack() as stack:
        both: list[EngineServer] = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            server = engine_server(kind, folder / name, environment=clock.environment)
            both.append(stack.enter_context(server))
            both[-1].run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        yield Servers(both[0], both[1], clock)


@contextlib.asynccontextmanager
async def running(servers: Servers) -> AsyncIterator[Nodes]:
    """Run two nodes on the master, with all that they promised before a fault."""
    servers.reset()
    options = servers.master.options()
    async with contextlib.AsyncExitStack() as stack:
        links = [await stack.enter_async_context(lossy_link(servers.master.port)) for _ in range(2)]
        nodes = Nodes(options, links)
        try:
            await nodes.open()
            servers.master.run("HSET", options.key("j.0", "e"), "since", time.time() - 100)
            for _ in range(3):
                await nodes.round()
            assert sum(True in answers for _, answers in nodes.claims.values()) == 3
            yield nodes
        finally:
            async with asyncio.timeout(30):
                await nodes.close()
    assert not engine_tasks(), "G: tasks are left"


Fault = Callable[[Servers, Nodes], Awaitable[None]]


async def restart_empty(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.stop()
        await nodes.failing()
        servers.master.start()


async def restart_with_its_file(servers: Servers, nodes: Nodes) -> None:
    servers.master.arguments = APPEND_ONLY
    servers.master.run("CONFIG", "SET", "appendonly", "yes")
    await until(lambda: not servers.master.run("INFO", "persistence")["aof_rewrite_in_progress"])
    async with nodes.busy():
        await nodes.more()
        servers.master.stop()
        servers.master.start()
        await nodes.more()


async def clean_restart(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.stop(signal.SIGTERM)
        servers.master.start()
        await nodes.more()


async def script_flush(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        for _ in range(3):
            servers.master.run("SCRIPT", "FLUSH")
            await nodes.more(2)


async def stopped_for_seconds(servers: Servers, nodes: Nodes) -> None:
    assert servers.master.process is not None
    async with nodes.busy():
        servers.master.process.send_signal(signal.SIGSTOP)
        await nodes.blind()
        await nodes.failing()  # after 2 s
        servers.master.process.send_signal(signal.SIGCONT)
        await nodes.more()


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


async def empty_with_a_clock_an_hour_back(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        servers.master.stop()
        servers.clock.move(-3600)
        servers.master.start()
        await nodes.more()
        servers.clock.move(0)
        await nodes.more()


async def clock_ahead_for_a_moment(servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        keys = servers.master.run("KEYS", "*")
        servers.clock.move(3600)
        servers.master.run("EXISTS", *keys)  # which removes those whose time seems to be over
        await nodes.more()
        servers.clock.move(0)
        await nodes.more()


async def failover_to_a_replica_that_lags(servers: Servers, nodes: Nodes) -> None:
    async with lossy_link(servers.master.port) as link:
        servers.replica.run("REPLICAOF", "127.0.0.1", link.port)
        await until(partial(has, servers.replica, master_link_status="up"))
        await nodes.round()
        await until(lambda: servers.replica.run("DBSIZE") == servers.master.run("DBSIZE"))
        link.swallows = {"replies"}  # the replica is cut off, and the master goes on
        for _ in range(3):
            await nodes.round()
        servers.replica.run("REPLICAOF", "NO", "ONE")
        async with nodes.busy():
            servers.master.stop()
            for one in nodes.links:
                one.target = servers.replica.port
            await nodes.more()


async def two_failovers_around_an_idle_connection(servers: Servers, nodes: Nodes) -> None:
    await servers.replicate()
    await nodes.round()
    for old, new in ((servers.master, servers.replica), (servers.replica, servers.master)):
        await until(partial(is_followed, old))
        old.run("FAILOVER", "TO", "127.0.0.1", new.port)
        await until(partial(has, new, role="master"))
        await until(partial(has, old, master_link_status="up"))


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


async def slow_link(_servers: Servers, nodes: Nodes) -> None:
    async with nodes.busy():
        nodes.links[0].delay_s = 0.2
        await nodes.more()
        nodes.links[0].delay_s = 0


async def busy_script(servers: Servers, nodes: Nodes) -> None:
    servers.master.run("CONFIG", "SET", "busy-reply-threshold", "20")

    def run_for_ever() -> None:
        with contextlib.suppress(Exception):
            servers.master.run("EVAL", "while true do end", 0)

    thread = threading.Thread(target=run_for_ever)
    thread.start()
    async with nodes.busy():
        await nodes.failing()
        servers.master.run("SCRIPT", "KILL")
        await asyncio.to_thread(thread.join)
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


async def cancelled_callers(_servers: Servers, nodes: Nodes) -> None:
    await nodes.cancelled_callers(300)


def current_script(name: str) -> scripts.Script:
    """Return the script that the nodes use, which a test may have changed."""
    found: scripts.Script = vars(broker)["script"](name)
    return found


def lost_reply(name: str) -> Fault:
    """Return the fault that the reply to a script is lost."""

    async def fault(servers: Servers, nodes: Nodes) -> None:
        if name in ("load", "control"):  # a node calls them when it starts, and after a loss
            nodes.links[0].lose_reply_to(current_script(name).sha.encode())
            async with nodes.busy():
                servers.master.run("FLUSHALL")
                await nodes.until(lambda: nodes.links[0].lost)
            return
        for _ in range(3):
            before = nodes.links[0].lost
            nodes.links[0].lose_reply_to(current_script(name).sha.encode())
            if name == "claim":
                await nodes.claim(f"lost-{before}", time.time(), nodes=(0,))
            elif name == "publish":
                await nodes.publish(0, CHANNELS[before])
            else:
                await nodes.revoke(0)
            assert nodes.links[0].lost == before + 1

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


async def silent_connections(_servers: Servers, nodes: Nodes) -> None:
    for link in nodes.links:
        link.silence()
    await nodes.round()  # each connection is found dead at the same time


FAULTS: list[Fault] = [
    restart_empty,
    restart_with_its_file,
    clean_restart,
    script_flush,
    stopped_for_seconds,
    flushall,
    flushall_twice,
    flushall_without_traffic,
    empty_with_a_clock_an_hour_back,
    clock_ahead_for_a_moment,
    failover_to_a_replica_that_lags,
    two_failovers_around_an_idle_connection,
    connections_killed_in_a_loop,
    black_hole_both_ways,
    black_hole_for_replies,
    slow_link,
    busy_script,
    password_changed,
    full_memory,
    read_only,
    silent_connections,
    fault_in_a_task,
    cancelled_callers,
    *(lost_reply(name) for name in ("publish", "claim", "revoke", "load", "control")),
]


ON_BOTH = [
    restart_with_its_file,
    flushall_twice,
    failover_to_a_replica_that_lags,
    two_failovers_around_an_idle_connection,
    lost_reply("publish"),
]
"""What depends on the server: its replication ids, its scripts, its files. The rest depends on the nodes."""


@pytest.mark.parametrize(
    ("servers", "fault"),
    [*(("redis", fault) for fault in FAULTS), *(("valkey", fault) for fault in ON_BOTH)],
    indirect=["servers"],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
async def test_all_promises_hold_after_a_fault(servers: Servers, fault: Fault) -> None:
    """Positions, last values, used tokens and revocations: see the invariants A to G."""
    async with asyncio.timeout(120), running(servers) as nodes:
        await fault(servers, nodes)
        if fault is flushall_without_traffic:
            await nodes.check(publishing=False)
        await nodes.check()


# each control taken away


def without(monkeypatch: pytest.MonkeyPatch, name: str, text: str, instead: str) -> None:
    """Change a part of a script."""
    found: Callable[[str], scripts.Script] = vars(broker)["script"]
    real = found(name)
    assert text in real.text, f"{name}.lua has no {text!r}"
    changed_text = real.text.replace(text, instead)
    sha = hashlib.sha1(changed_text.encode(), usedforsecurity=False).hexdigest()
    changed = scripts.Script(name, changed_text, sha)

    def script_of(wanted: str) -> scripts.Script:
        return changed if wanted == name else found(wanted)

    monkeypatch.setattr(broker, "script", script_of)
    monkeypatch.setattr(state, "script", script_of)


def no_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch is not bound to the life of the server."""
    for name in ("publish", "load", "claim", "control", "revoke"):
        without(monkeypatch, name, "known[1] == replid and", "known[1] and")


def no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token from before the life of the claims is like any other."""
    without(monkeypatch, "claim", "<= since + 2", "< 0")


def no_begin_of_life_at_the_right_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A life of the claims begins whatever the clocks say."""
    without(monkeypatch, "claim", "if not differs then\n  local _", "if true then\n  local _")


def no_day_for_used_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Used tokens are kept by the engine's clock, for as long as they are good."""
    without(monkeypatch, "claim", "86400000", "152000")


def no_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that is sent again is not recognized."""
    without(monkeypatch, "claim", "return redis.call('HGET', of(minute), jti)", "return ''")


def no_batch_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is sent again is published again."""
    without(monkeypatch, "publish", "if tonumber(number) == batch then return reply end", "")


def no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that ends empty is not compared with the newest entry."""

    async def nothing(_self: LogReader, _connection: Any) -> bool:
        return False

    monkeypatch.setattr(LogReader, "_compare", nothing)


def no_write_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node does not write back the revocations that it knows."""
    begin = EngineState._begin

    async def begin_only(self: EngineState) -> Any:
        known, self._revoked = self._revoked, {}
        position = await begin(self)
        self._revoked = known | self._revoked
        return position

    monkeypatch.setattr(EngineState, "_begin", begin_only)


def no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader waits for as long as its connection is open."""
    monkeypatch.setattr(log_reader, "_ANSWER_WITHIN_S", 3600.0)


def no_restart_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that fails stays as it is."""
    monkeypatch.setattr(tasks, "AGAIN_S", (3600.0, 3600.0))


Remove = Callable[[pytest.MonkeyPatch], None]

TABLE: list[tuple[Fault, Remove, str]] = [
    (failover_to_a_replica_that_lags, no_life, "B"),
    (flushall, no_fence, "E"),
    (restart_empty, no_fence, "E"),
    (empty_with_a_clock_an_hour_back, no_begin_of_life_at_the_right_time, "E"),
    (clock_ahead_for_a_moment, no_day_for_used_tokens, "E"),
    (lost_reply("claim"), no_nonce, "E"),
    (lost_reply("publish"), no_batch_numbers, "B"),
    (flushall, no_write_back, "F"),
    (flushall_without_traffic, no_comparison, "D"),
    (silent_connections, no_time_limit, "D"),
    (fault_in_a_task, no_restart_of_tasks, "D"),
]
"""Fault, control, and the letter of the invariant that the control keeps."""


@pytest.mark.parametrize(
    ("fault", "remove", "broken"), TABLE, ids=lambda one: one if isinstance(one, str) else one.__name__
)
async def test_each_control_is_needed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, fault: Fault, remove: Remove, broken: str
) -> None:
    """Without it the same fault breaks a promise."""
    remove(monkeypatch)
    async with asyncio.timeout(120), running(servers) as nodes:
        await fault(servers, nodes)
        with pytest.raises(AssertionError, match=rf"^{broken}:"):
            # what never comes is waited for: the longer, the more certain that it does not come
            await nodes.check(
                publishing=fault is not flushall_without_traffic,
                within_s=2.0 if broken == "D" else SETTLES_WITHIN_S,
                known_within_s=1.0 if broken == "F" else SETTLES_WITHIN_S,
            )
