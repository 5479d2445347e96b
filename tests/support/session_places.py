"""Two nodes with connections of no transport: the registry and the state store of each, as the gate uses them."""

import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from relay.core.errors import UnavailableError
from relay.engine.options import EngineOptions
from relay.engine.state import EngineState
from relay.net.admission import AdmissionQueue
from relay.state.sqlite import SqliteState
from relay.stream.lifecycle import Phase
from relay.stream.registry import Registry

NOW = float(int(time.time()) + 3600)
"""An hour ahead: an engine refuses tokens from before its own start."""
MOST = 3


class Opened:
    """A connection of no transport."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.phase = Phase.OPEN
        self.opened_at = time.time()
        self.code: int | None = None

    def end(self, close: Any) -> None:
        """See `Connection.end`."""
        self.code = int(close.code)


class Node:
    """The registry and the store of a node."""

    def __init__(self, state: SqliteState | EngineState, *, replace: bool) -> None:
        self.state = state
        shared = state.claims if isinstance(state, EngineState) else None
        self.registry = Registry(
            per_session=MOST, replace=replace, closing_queue=AdmissionQueue(), places=shared
        )
        if shared is not None:
            shared.connect(self.registry.places, self.registry.end_replaced)

    @property
    def engine(self) -> EngineState:
        """Its store, if that is an engine."""
        assert isinstance(self.state, EngineState)
        return self.state

    async def open(self, session: str, jti: str = "") -> Any:
        """Open a connection as the gate and the service do."""
        connection = Opened()
        await self.enter(connection, session, jti)
        return connection

    async def enter(self, connection: Any, session: str, jti: str = "") -> None:
        """Use up a token of a session for a connection, and register it."""
        await self.claim(connection, session, jti or f"jti-{uuid4()}")
        self.add(connection, session)

    async def claim(self, connection: Any, session: str, jti: str) -> None:
        """Use up a token, and take a place."""
        try:
            while True:
                place = self.registry.reserve(connection, session)
                try:
                    assert await self.state.claim(jti, expires_at=NOW + 30, issued_at=NOW, place=place)
                    return
                except UnavailableError as error:
                    if "clocks" not in str(error):  # the call waited for a second: the machine is busy
                        raise
        except BaseException:
            self.registry.release(connection)
            raise

    def add(self, connection: Any, session: str) -> None:
        """Register a connection."""
        claims = SimpleNamespace(session_ref=session, subject="u")
        attempt = SimpleNamespace(endpoint=SimpleNamespace(name="prices"))
        admitted: Any = SimpleNamespace(claims=claims, attempt=attempt, kid="k")
        self.registry.add(connection, admitted)


Nodes = tuple[Node, Node]


@contextlib.asynccontextmanager
async def two_nodes(*options: EngineOptions, replace: bool) -> AsyncIterator[Nodes]:
    """Run two nodes on an engine, with the same options or one each."""
    async with contextlib.AsyncExitStack() as stack:
        states = [await EngineState.open(one) for one in (options[0], options[-1])]
        for state in states:
            stack.push_async_callback(state.aclose)
        yield Node(states[0], replace=replace), Node(states[1], replace=replace)
