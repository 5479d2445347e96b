"""The state store in a real engine, for two nodes, and through faults of the engine."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.core.errors import UnavailableError
from relay.engine.options import EngineOptions
from relay.engine.state import EngineState
from tests.support.engines import EngineServer, engine_server, until
from tests.support.moved_clock import MovedClock

FUTURE = time.time() + 3600
"""A token of this time is younger than any engine of the tests."""


class Node:
    """The store of one node, and what it was told of others' revocations."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextlib.asynccontextmanager
    async def open(self, options: EngineOptions) -> AsyncIterator[EngineState]:
        """Open the store."""
        state = await EngineState.open(options, on_revoked=self.told.append)
        try:
            yield state
        finally:
            await state.aclose()


@contextlib.asynccontextmanager
async def two_nodes(options: EngineOptions) -> AsyncIterator[tuple[EngineState, EngineState, Node]]:
    """Run two nodes on one engine. The node is the second one's."""
    node = Node()
    async with Node().open(options) as one, node.open(options) as other:
        yield one, other, node


async def claim(state: EngineState, jti: str) -> bool:
    """Claim a token that is younger than the engine."""
    return await state.claim(jti, expires_at=FUTURE + 30, issued_at=FUTURE)


async def test_a_token_that_was_used_on_one_node_is_refused_on_the_other(own_engine: EngineServer) -> None:
    """Of a hundred claims on both at once, one gets it."""
    async with two_nodes(own_engine.options()) as (one, other, _):
        answers = await asyncio.gather(*(claim((one, other)[n % 2], "jti") for n in range(100)))
        assert sum(answers) == 1
        assert not await claim(one, "jti")
        assert not await claim(other, "jti")


async def test_a_revocation_reaches_the_other_node_once(own_engine: EngineServer) -> None:
    """Without being asked for; the node that revoked is not told of its own."""
    first = Node()
    options = own_engine.options()
    async with first.open(options) as one, two_nodes(options) as (_, other, node):
        now = time.time()
        await one.revoke("session-1", at=now, until=now + 100)
        await until(lambda: node.told)
        assert other.revoked_at("session-1") == pytest.approx(now, abs=1e-5)
        await one.revoke("session-2", at=now, until=now + 100)
        await until(lambda: "session-2" in node.told)
        assert (node.told, first.told) == (["session-1", "session-2"], [])


async def test_a_node_that_starts_later_knows_all_revocations(own_engine: EngineServer) -> None:
    """More than one reply of the engine has; and those that it brings with it are written to the engine."""
    options = own_engine.options()
    now = time.time()
    async with Node().open(options) as one:
        await one._write([(f"s{n}", now, now + 100) for n in range(1500)])
        brought = {"brought": (now, now + 100)}
        later = await EngineState.open(options, known=brought)
        assert all(later.revoked_at(f"s{n}") for n in range(1500))
        await until(lambda: one.revoked_at("brought"))
        await later.aclose()


async def test_an_engine_that_is_away_is_an_error_and_a_blind_node(own_engine: EngineServer) -> None:
    """Nothing is answered from memory but revocations; all goes on when it is back."""
    async with two_nodes(own_engine.options()) as (one, other, _):
        now = time.time()
        await one.revoke("session-1", at=now, until=now + 100)
        assert not one.is_blind
        own_engine.stop()
        with pytest.raises(UnavailableError, match="engine"):
            await claim(one, "jti")
        with pytest.raises(UnavailableError):
            await one.revoke("session-2", at=now, until=now + 100)
        await until(lambda: one.is_blind and other.is_blind)
        assert one.revoked_at("session-1")
        own_engine.start()
        await until(lambda: not one.is_blind and not other.is_blind)
        assert await claim(one, "jti")


async def test_clocks_that_differ_are_refused_for_now(own_engine: EngineServer) -> None:
    """A claim whose time the engine would measure wrongly is not made."""
    options = own_engine.options()
    state = await EngineState.open(options, clock=lambda: time.time() + 5)
    with pytest.raises(UnavailableError, match="clocks"):
        await claim(state, "jti")
    await state.aclose()
    async with Node().open(options) as right:
        assert await claim(right, "jti")


@pytest.mark.parametrize("follows", [False, True], ids=["the engine's", "all"])
async def test_a_clock_that_was_ahead_for_a_moment_frees_no_token(tmp_path: Path, follows: bool) -> None:
    """The engine forgets a used token only while the clocks agree, and then four minutes later."""
    clock = MovedClock(tmp_path)
    ahead = 0
    with engine_server("redis", tmp_path, environment=clock.environment) as engine:
        state = await EngineState.open(engine.options(), clock=lambda: time.time() + ahead)
        assert await claim(state, "jti")
        clock.move(3600)
        if follows:  # the nodes' clocks were wrong with it
            ahead = 3600
            assert await claim(state, "another")
        else:
            with pytest.raises(UnavailableError, match="clocks"):
                await claim(state, "another")
        engine.run("DBSIZE")
        clock.move(0)
        ahead = 0
        assert not await claim(state, "jti")
        assert await claim(state, "new")
        await state.aclose()


async def test_a_life_that_began_while_the_clock_was_ahead_refuses_nobody_later(tmp_path: Path) -> None:
    """When the clock is right again, tokens from then on are used."""
    clock = MovedClock(tmp_path)
    clock.move(3600)
    with engine_server("redis", tmp_path, environment=clock.environment) as engine:
        state = await EngineState.open(engine.options())
        clock.move(0)
        with pytest.raises(UnavailableError, match="used before"):
            await state.claim("old", expires_at=time.time() + 30, issued_at=time.time())
        now = time.time() + 5
        assert await state.claim("new", expires_at=now + 30, issued_at=now)
        await state.aclose()


async def test_used_tokens_are_forgotten_after_some_minutes(tmp_path: Path) -> None:
    """Their memory is bounded: a handful of minutes at a time, whatever the load."""
    clock = MovedClock(tmp_path)
    ahead = 0
    with engine_server("redis", tmp_path, environment=clock.environment) as engine:
        options = engine.options()
        state = await EngineState.open(options, clock=lambda: time.time() + ahead)
        for ahead in range(0, 1200, 60):
            clock.move(ahead)
            assert await claim(state, f"jti-{ahead}")
        assert not await claim(state, f"jti-{ahead - 120}")
        minutes = engine.run("KEYS", options.key("j.0", "j:*"))
        assert len(minutes) == 4
        assert all(0 < engine.run("PTTL", one) <= 86_400_000 for one in minutes)
        await state.aclose()


async def test_a_quiet_minute_refuses_nobody(tmp_path: Path) -> None:
    """All clocks go on, and no claim came meanwhile."""
    clock = MovedClock(tmp_path)
    ahead = 0
    with engine_server("redis", tmp_path, environment=clock.environment) as engine:
        state = await EngineState.open(engine.options(), clock=lambda: time.time() + ahead)
        for ahead in (58, 120, 3600, 90_000):
            clock.move(ahead)
            now = time.time() + ahead
            assert await state.claim(f"jti-{ahead}", expires_at=now + 30, issued_at=now)
        await state.aclose()


async def test_a_node_that_can_not_read_what_is_new_is_blind(own_engine: EngineServer) -> None:
    """The engine answers everything else. Then it wants a password, and `/ready` says so."""
    options = own_engine.options()
    one, other = await EngineState.open(options), await EngineState.open(options)
    try:
        own_engine.run("ACL", "SETUSER", "default", "-xread")
        await until(lambda: "xread" in one.pulse.why and "xread" in other.pulse.why)
        await other.revoke("session", at=time.time(), until=time.time() + 600)
        await until(lambda: one.is_blind)
        assert one.revoked_at("session") is None
        own_engine.run("ACL", "SETUSER", "default", "+xread")
        await until(lambda: one.revoked_at("session") is not None and not one.is_blind)
        with own_engine.client() as client:  # it stays logged in
            client.execute_command("CONFIG", "SET", "requirepass", "secret")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda: one.is_blind)
            assert "Authentication required" in one.pulse.why
            client.execute_command("CONFIG", "SET", "requirepass", "")
        await until(lambda: not one.is_blind)
        assert not one.pulse.why
    finally:
        await one.aclose()
        await other.aclose()
