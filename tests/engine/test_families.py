"""Refresh families in a real engine, through faults of the engine, while refreshes run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from relay.core.errors import UnavailableError
from relay.state.families import Family, Over, Redeem, Refused, Succeeded, Taken, Wait
from tests.support.engines import EngineServer, lossy_link
from tests.support.families import KEEP_S, LOGIN, SETTLED_S, Clocks, Node, engine_node, key


@contextlib.asynccontextmanager
async def two_nodes(engine: EngineServer) -> AsyncIterator[tuple[Node, Node, Clocks, str]]:
    """Run two nodes, and return them with their clocks and the prefix of their keys."""
    options, clocks = engine.options(), Clocks()
    async with engine_node(options, clocks) as one, engine_node(options, clocks) as other:
        yield one, other, clocks, options.prefix


def lose(engine: EngineServer, clocks: Clocks) -> None:
    """Let the engine lose everything; its new life is young."""
    engine.run("FLUSHALL")
    clocks.moved = 0


async def taken_at_last(node: Node, token: str) -> Taken:
    """Ask until the answer is not to wait, as a refresher does."""
    async with asyncio.timeout(30):
        while isinstance(taken := await node.take(token), Wait):  # noqa: ASYNC110  # a lease has no event
            await asyncio.sleep(0.01)
    return taken


async def test_a_result_outlives_the_engines_data(own_engine: EngineServer) -> None:
    """A tab that still has the old token gets the successor at the other node; the backend is not asked again."""
    async with two_nodes(own_engine) as (one, other, clocks, _):
        await one.begin()
        await one.rotate("t0", "t1")
        lose(own_engine, clocks)
        taken = await taken_at_last(other, "t0")
        assert isinstance(taken, Succeeded)
        assert (taken.sealed, taken.family) == (b"for t1", LOGIN)
        assert list(await other.store.end_sessions(subject="u1")) == ["ref-1"]


async def test_a_call_that_runs_while_the_engine_loses_its_data_stays_the_only_one(
    own_engine: EngineServer,
) -> None:
    """Nobody else gets the lease, and the result is stored: the old token is spent at the backend."""
    async with two_nodes(own_engine) as (one, other, clocks, _):
        await one.begin()
        lease = await one.lease("t0")
        lose(own_engine, clocks)
        assert isinstance(await other.take("t0"), Wait)
        assert await one.complete("t0", lease, "t1")
        assert isinstance(await other.take("t0"), Succeeded)
        assert isinstance(await other.take("t1"), Redeem)


async def test_an_answer_of_no_use_stays_known_when_the_engine_loses_its_data(
    own_engine: EngineServer,
) -> None:
    """Before and after the loss: the token is not sent again."""
    async with two_nodes(own_engine) as (one, other, clocks, _):
        for token in ("a0", "b0"):
            await one.begin(token)
        await one.store.spend(key("a0"), await one.lease("a0"))
        lease = await one.lease("b0")
        lose(own_engine, clocks)
        await one.store.spend(key("b0"), lease)
        for token in ("a0", "b0"):
            assert await taken_at_last(other, token) == Refused(over=Over.UNUSABLE, family=LOGIN)


async def test_a_log_out_outlives_the_engines_data(own_engine: EngineServer) -> None:
    """One from before the loss, and one after it that ends a call that runs."""
    async with two_nodes(own_engine) as (one, other, clocks, _):
        await one.begin("a0")
        await one.begin("b0", Family(session="ref-2", subject="u2", logged_in_at=1_000))
        await other.store.end(key("a0"))
        lease = await one.lease("b0")
        lose(own_engine, clocks)
        assert list(await other.store.end(key("b0"))) == []
        assert not await one.complete("b0", lease, "b1")
        assert await taken_at_last(one, "a0") == Refused(over=Over.ENDED, family=LOGIN)


async def test_a_master_that_misses_the_last_writes_gives_no_second_lease(own_engine: EngineServer) -> None:
    """After a failover to a replica that was behind: a lease may be missing, so the tokens from before wait."""
    async with two_nodes(own_engine) as (one, other, clocks, prefix):
        await one.begin()
        lease = await one.lease("t0")
        family = own_engine.run("GET", f"{prefix}:{{f.0}}:t:{key('t0').hex()}").decode()
        own_engine.run("HSET", f"{prefix}:{{f.0}}:f:{family}", "lease", "", "leased", "0")
        own_engine.run("HSET", f"{prefix}:{{f.0}}:e", "replid", "0" * 40)
        clocks.moved = 0
        assert isinstance(await other.take("t0"), Wait)
        assert await one.complete("t0", lease, "t1")
        assert isinstance(await other.take("t0"), Succeeded)


async def test_an_unknown_token_waits_in_a_young_life(own_engine: EngineServer) -> None:
    """Another node may have a call with it; when all leases of the life before are over, it is leased alone."""
    async with two_nodes(own_engine) as (one, other, clocks, _):
        lose(own_engine, clocks)
        waits = await one.take("x")
        assert isinstance(waits, Wait)
        assert 0 < waits.for_s <= 6
        clocks.moved = SETTLED_S
        assert isinstance(await one.take("x"), Redeem)
        assert isinstance(await other.take("x"), Wait)


async def test_a_lost_reply_changes_nothing(own_engine: EngineServer) -> None:
    """The call is sent again, and the script recognizes it: no second lease, no lost result, no forgotten session."""
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(lossy_link(own_engine.port))
        options = own_engine.options(f"redis://127.0.0.1:{proxy.port}")
        clocks = Clocks()
        node = await stack.enter_async_context(engine_node(options, clocks))
        proxy.lose_reply_to(b"begin")
        await node.begin()
        proxy.lose_reply_to(b"take")
        lease = await node.lease("t0")
        proxy.lose_reply_to(b"complete")
        assert await node.complete("t0", lease, "t1")
        proxy.lose_reply_to(b"end_sessions")
        assert list(await node.store.end_sessions(session="ref-1")) == ["ref-1"]
        await node.begin("s0")
        lease = await node.lease("s0")
        proxy.lose_reply_to(b"spend")
        await node.store.spend(key("s0"), lease)
        lose(own_engine, clocks)
        assert isinstance(await taken_at_last(node, "s0"), Refused)
        assert proxy.lost == 5


async def test_a_wrong_clock_gets_no_lease_and_loses_no_result(own_engine: EngineServer) -> None:
    """A lease would be measured wrongly. What the backend has sent is stored all the same."""
    async with two_nodes(own_engine) as (one, _, clocks, _):
        await one.begin()
        lease = await one.lease("t0")
        one.store._clock = lambda: clocks.wall
        with pytest.raises(UnavailableError, match="clocks"):
            await one.take("t0")
        assert await one.complete("t0", lease, "t1")


async def test_an_engine_that_is_away_is_an_error(own_engine: EngineServer) -> None:
    """The caller answers 503 and keeps the cookie. What was known before is known again when it is back."""
    async with two_nodes(own_engine) as (one, other, clocks, _):
        await one.begin()
        await one.rotate("t0", "t1")
        own_engine.stop()
        with pytest.raises(UnavailableError):
            await other.take("t0")
        own_engine.start()
        clocks.moved = 0
        assert isinstance(await taken_at_last(other, "t0"), Succeeded)


async def test_a_result_waits_for_an_engine_that_is_away(own_engine: EngineServer) -> None:
    """The old token is spent at the backend, so a result must not be lost with one call."""
    async with two_nodes(own_engine) as (one, other, _, _):
        await one.begin()
        lease = await one.lease("t0")
        own_engine.stop()
        storing = asyncio.create_task(one.complete("t0", lease, "t1"))
        with pytest.raises(UnavailableError):
            await other.take("t0")
        own_engine.start()
        assert await storing


async def test_all_that_is_stored_ends_with_the_cookie(own_engine: EngineServer) -> None:
    """Every key but the life has an end, and none before the newest cookie's."""
    async with two_nodes(own_engine) as (one, _, _, prefix):
        await one.begin()
        await one.rotate("t0", "t1")
        await one.lease("t1")
        names = [name for name in own_engine.run("KEYS", f"{prefix}:{{f.0}}:*") if not name.endswith(b":e")]
        assert len(names) == 5, "a family, two tokens, a session, a user"
        for name in names:
            assert KEEP_S - 60 < own_engine.run("PTTL", name) / 1000 <= KEEP_S


async def test_a_user_with_hundreds_of_log_ins_is_logged_out_everywhere(own_engine: EngineServer) -> None:
    """More than one call of the script ends."""
    async with two_nodes(own_engine) as (one, other, _, _):
        log_ins = [Family(session=f"s{n}", subject="u1", logged_in_at=1_000) for n in range(250)]
        await asyncio.gather(*(one.begin(f"t{n}", family) for n, family in enumerate(log_ins)))
        ended = await other.store.end_sessions(subject="u1")
        assert set(ended) == {family.session for family in log_ins}
        assert isinstance(await one.take("t249"), Refused)
