"""Stores of refresh families for tests: two nodes on one store, with short calls, and clocks that the test moves."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from relay.engine.families import EngineFamilies
from relay.engine.options import EngineOptions
from relay.state.families import Family, Redeem, Renewal, Taken
from relay.state.sqlite_families import SqliteFamilies

LOGIN = Family(session="ref-1", subject="u1", logged_in_at=1_000)
DAY_S = 86_400.0
KEEP_S = 7 * DAY_S
SETTLED_S = 300.0
"""Seconds after which an engine is not young any more: no lease of the life before can be left."""


class Clocks:
    """Two clocks that the test moves. `wall` starts at Unix seconds, `steady` at those of a running machine."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 5_000.0
        self.moved = SETTLED_S

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds
        self.moved += seconds


class Node:
    """A store of one process, with short calls."""

    def __init__(self, store: SqliteFamilies | EngineFamilies) -> None:
        self.store = store

    async def begin(self, token: str = "t0", family: Family = LOGIN) -> None:
        await self.store.begin(key(token), family, address="192.0.2.1", keep_s=KEEP_S)

    async def take(self, token: str, *, is_shown: bool = True) -> Taken:
        return await self.store.take(
            key(token), lease_s=6, unconfirmed_s=DAY_S, keep_s=KEEP_S, is_shown=is_shown
        )

    async def lease(self, token: str) -> bytes:
        taken = await self.take(token)
        assert isinstance(taken, Redeem)
        return taken.lease

    async def complete(self, token: str, lease: bytes, successor: str, **changes: Any) -> bool:
        values: dict[str, Any] = {"family": LOGIN, "address": "192.0.2.1"} | changes
        sealed = f"for {successor}".encode()
        return await self.store.complete(
            key(token), lease, Renewal(successor=key(successor), sealed=sealed, keep_s=KEEP_S, **values)
        )

    async def rotate(self, token: str, successor: str) -> None:
        assert await self.complete(token, await self.lease(token), successor)


def key(token: str) -> bytes:
    """Return what stands for a token's hash."""
    return token.encode().ljust(16, b".")


@contextlib.asynccontextmanager
async def sqlite_node(folder: Path, clocks: Clocks) -> AsyncIterator[Node]:
    """Open the state file of a folder, as one process does."""
    store = SqliteFamilies.open(folder / "state.db", clock=lambda: clocks.wall, steady=lambda: clocks.steady)
    yield Node(store)
    await store.aclose()


@contextlib.asynccontextmanager
async def engine_node(options: EngineOptions, clocks: Clocks) -> AsyncIterator[Node]:
    """Connect to an engine, as one node does."""
    store = await EngineFamilies.open(
        options, clock=lambda: time.time() + clocks.moved, lead=lambda: clocks.moved
    )
    try:
        yield Node(store)
    finally:
        await store.aclose()
