"""The limit of a session's connections: what holds on one node alone, and over two nodes of an engine."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.core.closes import CloseCode
from relay.state.base import NoPlaceError
from relay.state.sqlite import SqliteState
from tests.support.engines import ENGINES, Engines, until
from tests.support.session_places import MOST, NOW, Node, Nodes, two_nodes


@pytest.fixture(autouse=True)
def _sure_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.engine.claims.SURE_AFTER_S", 1.0)


@contextlib.asynccontextmanager
async def nodes_of(kind: str, folder: Path, engines: Engines, *, replace: bool) -> AsyncIterator[Nodes]:
    """Run two nodes of one kind; SQLite has one node, which is both."""
    if kind == "sqlite":
        state = SqliteState.open(folder / "state.db", clock=lambda: NOW)
        node = Node(state, replace=replace)
        yield node, node
        await state.aclose()
    else:
        async with two_nodes(engines.options(kind), replace=replace) as both:
            yield both


@pytest.fixture(params=["sqlite", *ENGINES])
async def refusing(request: pytest.FixtureRequest, tmp_path: Path, engines: Engines) -> AsyncIterator[Nodes]:
    """Nodes that refuse one connection too many."""
    async with nodes_of(request.param, tmp_path, engines, replace=False) as both:
        yield both


@pytest.fixture(params=["sqlite", *ENGINES])
async def replacing(request: pytest.FixtureRequest, tmp_path: Path, engines: Engines) -> AsyncIterator[Nodes]:
    """Nodes that replace the oldest connection."""
    async with nodes_of(request.param, tmp_path, engines, replace=True) as both:
        yield both


async def test_one_too_many_is_refused_and_keeps_its_token(refusing: Nodes) -> None:
    """The same token works as soon as another connection has gone, and other sessions are not touched."""
    one, other = refusing
    opened = [await node.open("s") for node in (one, other, one)]
    with pytest.raises(NoPlaceError):
        await other.open("s", "kept")
    await other.open("another session")
    one.registry.remove(opened[0])
    await until(lambda: opened[0] not in one.registry.connections)
    assert await one.open("s", "kept")
    with pytest.raises(NoPlaceError):
        await one.open("s")


async def test_of_many_at_once_as_many_are_accepted_as_there_are_places(refusing: Nodes) -> None:
    """Nobody else loses a token."""
    nodes = itertools.cycle(refusing)
    answers = await asyncio.gather(
        *(next(nodes).open("s", f"jti-{number}") for number in range(12)), return_exceptions=True
    )
    refused = [number for number, answer in enumerate(answers) if isinstance(answer, NoPlaceError)]
    assert len(refused) == 12 - MOST
    for number in refused:
        assert await refusing[0].state.claim(f"jti-{number}", expires_at=NOW + 30, issued_at=NOW)


async def test_the_oldest_is_replaced_wherever_it_is(replacing: Nodes) -> None:
    """It gets the close code of today, and no other connection does."""
    one, other = replacing
    opened = [await node.open("s") for node in (one, other, one, other, one)]
    await until(lambda: opened[0].code and opened[1].code)
    codes = [connection.code for connection in opened]
    assert codes == [CloseCode.REPLACED, CloseCode.REPLACED, None, None, None]
    assert sum(len(node.registry._by_session["s"]) for node in {one, other}) == MOST


async def test_a_burst_leaves_as_many_as_there_are_places(replacing: Nodes) -> None:
    """Those that were replaced before they were registered end, too."""
    nodes = itertools.cycle(replacing)
    opened = await asyncio.gather(*(next(nodes).open("s") for _ in range(40)))
    await until(lambda: sum(connection.code is None for connection in opened) == MOST)
    assert {connection.code for connection in opened} == {None, int(CloseCode.REPLACED)}


async def test_a_refresh_takes_no_place_of_its_own(refusing: Nodes) -> None:
    """A connection that has its place keeps it; one of another session needs one."""
    one, _ = refusing
    opened = [await one.open("s") for _ in range(MOST)]
    await one.enter(opened[0], "s")
    stranger = await one.open("another")
    with pytest.raises(NoPlaceError):
        await one.enter(stranger, "s")
    assert len(one.registry.connections) == MOST + 1
    one.registry.remove(opened[1])
    await one.enter(stranger, "s")
    one.registry.remove(stranger)
    await one.open("s")


async def test_a_used_token_takes_no_place(refusing: Nodes) -> None:
    """However often it is shown."""
    one, other = refusing
    await one.open("s", "used")
    for node in (one, other) * MOST:
        with pytest.raises(AssertionError):
            await node.open("s", "used")
    for _ in range(MOST - 1):
        await other.open("s")
