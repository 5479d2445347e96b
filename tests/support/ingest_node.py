"""The publishers' WebSocket of a relay in the test's own process, over a broker of the test's choice."""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette

from relay.broker.base import Broker, Outcome
from relay.broker.memory import MemoryBroker
from relay.core.events import Client, Event
from relay.core.publications import Draft
from relay.ingest.frames import MAX_FRAME_BYTES
from relay.ingest.service import Ingest, PublisherTerms
from relay.ingest.socket import IngestSockets
from relay.keys.api_keys import check_bearer
from relay.limits.quotas import QuotaTerms
from relay.web.uvicorn_runner import HttpServer
from tests.support.relay_process import PUBLISHER_SECRET


class HeldBroker(MemoryBroker):
    """A broker that numbers at once, and answers when the test says so. `most` is how many waited at the same time."""

    def __init__(self) -> None:
        super().__init__(max_channels=1000)
        self.held: list[tuple[asyncio.Future[Outcome], Outcome]] = []
        self.handed = 0
        self.most = 0
        self.most_bytes = 0
        self._bytes: dict[asyncio.Future[Outcome], int] = {}
        self._changed = asyncio.Event()

    def publish(self, draft: Draft, *, ts: int) -> "asyncio.Future[Outcome]":  # type: ignore[override]  # also an Answer
        """Number it, and hold the answer back."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.held.append((future, super().publish(draft, ts=ts).result()))
        self.handed += 1
        waiting = [one for one, _ in self.held if not one.done()]
        self._bytes[future] = len(bytes(draft.data))
        self.most = max(self.most, len(waiting))
        self.most_bytes = max(self.most_bytes, sum(self._bytes[one] for one in waiting))
        self._changed.set()
        return future

    async def until_handed(self, count: int) -> None:
        """Wait until so many were handed over."""
        await self.until(lambda: self.handed == count)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of what was handed over."""
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def answer(self, place: int = 0, error: Exception | None = None) -> None:
        """Answer one of those that wait, by default the first one."""
        future, outcome = self.held.pop(place)
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)


@dataclass
class IngestNode:
    """A running ingest. `denied` are the audit records of refusals."""

    ingest: Ingest
    sockets: IngestSockets
    internal_url: str
    denied: list[dict[str, Any]] = field(default_factory=list)

    async def empty(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(20):
            while self.sockets._open:
                await asyncio.wait(self.sockets._open)


class _Auditor:
    def __init__(self, denied: list[dict[str, Any]]) -> None:
        self._denied = denied

    def note(self, event: Event) -> None:
        if event.reason is not None:
            self._denied.append({"reason": event.reason, **event.relay})

    async def record(self, event: Event) -> None:
        self.note(event)

    note_refusal = record


@contextlib.asynccontextmanager
async def ingest_node(broker: Broker, *, rate: str = "") -> AsyncIterator[IngestNode]:
    """Run the ingest of publisher `pricing`, whose channels are `prices.>` and `trades.>`."""
    denied: list[dict[str, Any]] = []
    terms = PublisherTerms(
        secret_sha256=(hashlib.sha256(PUBLISHER_SECRET.encode()).hexdigest(),),
        channels=("prices.>", "trades.>"),
        exclusive=True,
        quota=QuotaTerms(rate=rate),
    )
    ingest = Ingest(
        {"pricing": terms},
        broker=broker,
        auditor=_Auditor(denied),
        check_key=check_bearer,
        publications_recorded=1000,
    )
    sockets = IngestSockets(ingest, lambda _connection: Client(address="127.0.0.1"), streams=["trades.>"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = HttpServer(Starlette(routes=[sockets.route]), listener, max_frame_bytes=MAX_FRAME_BYTES)
        running = asyncio.create_task(server.run())
        await server.started()
        node = IngestNode(ingest, sockets, url, denied)
        try:
            yield node
            await node.empty()
        finally:
            server.stop()
            await running
            ingest.summary.end_minute()
