"""The refresh families in the state file: its clocks, its faults, and what it forgets."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError, UnavailableError
from relay.state.families import Redeem, Succeeded, Wait
from relay.state.sqlite_families import SqliteFamilies
from tests.support.families import DAY_S, KEEP_S, Clocks, Node, key, sqlite_node


@pytest.fixture
def clocks() -> Clocks:
    """The clocks of the node."""
    return Clocks()


@pytest.fixture
async def node(tmp_path: Path, clocks: Clocks) -> AsyncIterator[Node]:
    """One process."""
    async with sqlite_node(tmp_path, clocks) as made:
        yield made


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0, 30 * DAY_S])
async def test_the_wall_clock_decides_nothing(node: Node, clocks: Clocks, jump_s: float) -> None:
    """Neither a lease, nor the minute, nor the life of a family changes when somebody sets the clock."""
    await node.begin()
    await node.lease("t0")
    clocks.wall += jump_s
    assert isinstance(await node.take("t0"), Wait)
    clocks.go_on(6.1)
    await node.rotate("t0", "t1")
    await node.store.show(key("t1"))
    clocks.wall -= jump_s
    assert isinstance(await node.take("t0"), Succeeded)


async def test_a_family_goes_when_its_cookie_is_over(node: Node, clocks: Clocks) -> None:
    """By both clocks, and not before."""
    await node.begin()
    await node.store.end(key("t0"))
    for _ in range(int(KEEP_S / 1800) - 2):
        clocks.go_on(1800)
        await node.store.find(key("t0"))
    assert await node.store.find(key("t0")) is not None
    for _ in range(10):
        clocks.go_on(1800)
        await node.store.find(key("t0"))
    assert await node.store.find(key("t0")) is None


async def test_a_locked_file_is_an_error_and_no_answer(node: Node, tmp_path: Path) -> None:
    """The caller answers 503 and keeps the cookie."""
    await node.begin()
    with sqlite3.connect(tmp_path / "state.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError):
            await node.take("t0")
        other.execute("ROLLBACK")
    other.close()
    assert isinstance(await node.take("t0"), Redeem)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    """In one sentence, with the setting."""
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(ConfigurationError, match=r"engine\.state_path"):
        SqliteFamilies.open(path)


async def test_an_unknown_token_leaves_nothing_in_the_file(node: Node, tmp_path: Path) -> None:
    """Neither one that was refused, nor one that the backend gave no answer for."""
    await node.lease("x")
    await node.store.end(key("x"))
    await node.store.release(key("x"), await node.lease("x"))
    with sqlite3.connect(tmp_path / "state.db") as file:
        assert file.execute("SELECT count(*) FROM login_families").fetchone() == (0,)
    file.close()
