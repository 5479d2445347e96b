"""Every fault of the engine, done to real servers under load: what must hold after it (`engine_invariants`).

The second table takes one control away and does a fault: the check has to find it. So each control is needed, and the
check is able to see. The faults run side by side, because they mostly wait. The longest ones are the first.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from relay.engine.address import read_address
from tests.support import engine_controls as controls
from tests.support import engine_failovers as failovers
from tests.support import engine_faults as faults
from tests.support.engine_controls import Remove
from tests.support.engine_faults import Fault, lost_reply
from tests.support.engine_invariants import Nodes, engine_tasks
from tests.support.engine_pairs import SERVICE, Pairs, Servers
from tests.support.engines import find_program, lossy_link
from tests.support.side_by_side import SideBySide, side_by_side

ON_BOTH: list[Fault] = [
    faults.restart_that_loads_for_long,
    failovers.two_masters,
    failovers.sentinel_failover,
    failovers.sentinel_after_kill,
    faults.restart_empty,
    faults.restart_with_its_file,
    faults.flushall_twice,
    faults.empty_an_hour_back,
    failovers.failover_to_a_replica_that_lags,
    failovers.two_failovers_around_an_idle_connection,
    failovers.old_master_back_as_replica,
    faults.busy_script,
    faults.script_flush,
    lost_reply("publish"),
]
"""What depends on the server: its replication ids, scripts, files and refusals. The rest depends on the nodes."""

ON_REDIS: list[Fault] = [
    faults.stopped_for_12_s,
    faults.stopped_for_4_s,
    failovers.ten_thousand_clients_after_a_failover,
    faults.clean_restart,
    faults.flushall,
    faults.flushall_without_traffic,
    faults.node_behind_the_log,
    faults.engine_ahead_for_a_moment,
    faults.engine_back_for_a_moment,
    faults.engine_ahead_for_good,
    faults.engine_back_for_good,
    faults.empty_an_hour_ahead,
    faults.node_5_s_ahead,
    faults.node_5_s_back,
    faults.connections_killed_in_a_loop,
    faults.black_hole_both_ways,
    faults.black_hole_for_replies,
    faults.black_hole_for_requests,
    faults.delay_of_200_ms,
    faults.silent_connections,
    faults.password_changed,
    faults.full_memory,
    faults.read_only,
    faults.fault_in_a_task,
    faults.cancelled_callers,
    *(lost_reply(name) for name in ("claim", "revoke", "load", "control", "families")),
]

TABLE: list[tuple[Fault, Remove, str]] = [
    (failovers.two_masters_that_demand_no_replica, controls.nothing, "E:"),
    (failovers.two_masters, controls.no_write_in_the_comparison, "F:"),
    (failovers.sentinel_failover_that_the_old_master_ignores, controls.no_following, "E:"),
    (failovers.failover_to_a_replica_that_lags, controls.no_life, "B:"),
    (faults.flushall, controls.no_fence, "E:"),
    (faults.restart_empty, controls.no_fence, "E:"),
    (faults.empty_an_hour_back, controls.no_begin_of_life_at_the_right_time, "E:"),
    (faults.empty_an_hour_back, controls.no_begin_of_log_ins_at_the_right_time, "H: another node"),
    (faults.engine_ahead_for_a_moment, controls.no_day_for_used_tokens, "E:"),
    (lost_reply("claim"), controls.no_nonce, "E:"),
    (lost_reply("publish"), controls.no_batch_numbers, "B:"),
    (lost_reply("families"), controls.no_names_of_leases, "H: the result"),
    (faults.flushall, controls.no_write_back, "F:"),
    (faults.flushall, controls.no_results_written_back, "H: .* waits"),
    (faults.flushall_without_traffic, controls.no_comparison, "D:"),
    (faults.node_behind_the_log, controls.no_reading_of_all, "D:"),
    (faults.silent_connections, controls.no_time_limit, "D:"),
    (faults.fault_in_a_task, controls.no_restart_of_tasks, "D:"),
]
"""Fault, control, and how the error begins: the letter of the invariant that the control keeps."""


@contextlib.asynccontextmanager
async def running(servers: Servers, fault: Fault, remove: Remove) -> AsyncIterator[Nodes]:
    """Run two nodes on the master, with all that they promised before a fault."""
    options = servers.master.options(log_bytes=faults.LOG_BYTES)
    async with contextlib.AsyncExitStack() as stack:
        if fault in failovers.BY_SENTINEL:
            links = []
            sentinel = await stack.enter_async_context(servers.watched())
            urls = [f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"] * 2
        else:
            links = [await stack.enter_async_context(lossy_link(servers.master.port)) for _ in range(2)]
            urls = [f"redis://127.0.0.1:{link.port}" for link in links]
        nodes = Nodes([replace(options, address=read_address(url)) for url in urls], links)
        try:
            await nodes.open()
            remove(nodes)
            # the lives began long ago, so what is issued now can be used
            for shard in ("j.0", "f.0"):
                servers.master.run("HSET", options.key(shard, "e"), "since", time.time() - 100)
            while sum(True in answers for _, answers in nodes.claims.values()) < 3:
                await nodes.round()
            for _ in range(3):
                await nodes.logins.round()
                await nodes.logins.hold()
            yield nodes
        finally:
            await nodes.close()
    assert not engine_tasks(), "G: tasks are left"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """The servers of all faults."""
    for kind in ("redis", "valkey"):
        find_program(kind)
    lent = Pairs(tmp_path_factory.mktemp("pairs"))
    yield lent
    lent.close()


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, pairs: Pairs) -> Iterator[SideBySide]:
    """The faults of all tests that were selected."""

    async def run(fault: Fault, kind: str = "redis", remove: Remove | None = None, broken: str = "") -> None:
        with pairs(kind) as servers:
            async with running(servers, fault, remove or controls.nothing) as nodes:
                if remove is None:
                    await fault(servers, nodes)
                    await nodes.check()
                    return
                # what never comes is waited for: the longer, the more certain that it does not come
                nodes.within_s[broken[0]] = 2.0 if broken[0] == "D" else 1.0
                with pytest.raises(AssertionError, match=rf"^{broken}"):  # noqa: PT012  # a fault may check, too
                    await fault(servers, nodes)
                    await nodes.check()

    yield from side_by_side(request, run)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *((kind, fault) for fault in ON_BOTH for kind in ("redis", "valkey")),
        *(("redis", fault) for fault in ON_REDIS),
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_all_promises_hold_after_a_fault(
    runs: SideBySide, request: pytest.FixtureRequest, kind: str, fault: Fault
) -> None:
    """Positions, last values, used tokens, refresh tokens and revocations: see the invariants A to H."""
    runs.result(request)


@pytest.mark.parametrize(
    ("fault", "remove", "broken"), TABLE, ids=lambda one: one[0] if isinstance(one, str) else one.__name__
)
def test_each_control_is_needed(
    runs: SideBySide, request: pytest.FixtureRequest, fault: Fault, remove: Remove, broken: str
) -> None:
    """Without it the same fault breaks a promise."""
    runs.result(request)
