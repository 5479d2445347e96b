"""The state port's guarantees, which every adapter must give."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.engine.state import EngineState
from relay.state.base import State
from relay.state.sqlite import SqliteState
from tests.support.engines import ENGINES, Engines

NOW = float(int(time.time()) + 3600)
"""An hour ahead: an engine refuses tokens from before its own start."""


@contextlib.asynccontextmanager
async def adapter(kind: str, folder: Path, engines: Engines) -> AsyncIterator[State]:
    """Open one kind of store, empty."""
    made: SqliteState | EngineState
    if kind == "sqlite":
        made = SqliteState.open(folder / "state.db", clock=lambda: NOW)
    else:
        made = await EngineState.open(engines.options(kind))
    yield made
    await made.aclose()


@pytest.fixture(params=["sqlite", *ENGINES])
async def state(request: pytest.FixtureRequest, tmp_path: Path, engines: Engines) -> AsyncIterator[State]:
    """One adapter after the other, empty."""
    async with adapter(request.param, tmp_path, engines) as made:
        yield made


async def test_a_token_is_claimed_once(state: State) -> None:
    """The first claim gets it, every later one does not, and other tokens are not touched."""
    assert await state.claim("jti-1", expires_at=NOW + 30) is True
    assert await state.claim("jti-1", expires_at=NOW + 30) is False
    assert await state.claim("jti-1", expires_at=NOW + 9000) is False
    assert await state.claim("jti-2", expires_at=NOW + 30) is True


async def test_of_a_hundred_claims_at_once_one_gets_it(state: State) -> None:
    """Of a replay and the real connection at the same time, only the first is accepted."""
    answers = await asyncio.gather(*(state.claim("jti-1", expires_at=NOW + 30) for _ in range(100)))
    assert sorted(answers) == [False] * 99 + [True]


async def test_many_claims_at_once_don_t_mix_up(state: State) -> None:
    """A thousand tokens, each claimed twice in one burst: each goes once, to its first claim."""
    answers = await asyncio.gather(
        *(state.claim(f"jti-{number % 1000}", expires_at=NOW + 30) for number in range(2000))
    )
    assert answers == [True] * 1000 + [False] * 1000


@pytest.mark.parametrize("jti", ["", "' OR 1=1 --", "\x00", "é" * 1000, "JTI", "jti "])
async def test_a_claim_is_for_exactly_its_text(state: State, jti: str) -> None:
    """Any text may be a token's id, and it never stands for another id."""
    assert await state.claim("jti", expires_at=NOW + 30) is True
    assert await state.claim(jti, expires_at=NOW + 30) is True
    assert await state.claim(jti, expires_at=NOW + 30) is False


async def test_a_caller_that_gives_up_frees_no_token(state: State) -> None:
    """A claim whose connection went away may count, and never counts twice."""
    tasks = [asyncio.ensure_future(state.claim("jti-1", expires_at=NOW + 30)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers.count(True) <= 1
    assert await state.claim("jti-1", expires_at=NOW + 30) is False


async def test_a_revocation_is_seen_when_revoke_returns(state: State) -> None:
    """The node that revoked knows at once."""
    assert state.revoked_at("session-1") is None
    await state.revoke("session-1", at=NOW, until=NOW + 100)
    assert state.revoked_at("session-1") == NOW
    assert state.revoked_at("session-2") is None


async def test_a_second_revocation_counts_from_its_own_time(state: State) -> None:
    """If a session is revoked twice, the later revocation counts."""
    await state.revoke("session-1", at=NOW, until=NOW + 100)
    await state.revoke("session-1", at=NOW + 10, until=NOW + 110)
    assert state.revoked_at("session-1") == NOW + 10
