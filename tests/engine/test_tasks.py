"""A fault in a task of the engine's parts: it is counted, its callers get an error, and the task goes on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from relay.broker.base import Position
from relay.core.errors import UnavailableError
from relay.core.publications import Publication, parse_draft
from relay.engine import families as engine_families
from relay.engine import tasks
from relay.engine.broker import EngineBroker, Shard
from relay.engine.claims import ClaimShard
from relay.engine.families import EngineFamilies
from relay.engine.state import EngineState
from tests.support.engine_invariants import engine_tasks
from tests.support.engines import Engines, until

FUTURE = time.time() + 3600


class Values:
    """A receiver that keeps the last values."""

    def __init__(self) -> None:
        self.last: dict[str, Publication] = {}

    def publish(self, publication: Publication) -> None:
        """See `Receiver.publish`."""
        self.last[publication.channel] = publication

    def alive(self, channel: str, *, ts: int) -> None:
        """See `Receiver.alive`."""

    def remove(self, name: str, /) -> None:
        """See `Receiver.remove`."""

    def delivered(self, entry: int, epoch: str, *, log: int = 0) -> None:
        """See `Receiver.delivered`."""


@dataclass
class Node:
    """The parts of one node."""

    state: EngineState
    broker: EngineBroker
    values: Values

    @property
    def shard(self) -> Shard:
        """The only shard of the broker."""
        return self.broker.shards[0]

    @property
    def claims(self) -> ClaimShard:
        """The only shard of the claims."""
        return self.state.claims.shards[0]

    async def publish(self, value: int) -> Position:
        """Publish a value."""
        answer = await self.broker.publish(parse_draft(b'{"channel":"a","data":%d}' % value), ts=1)
        assert isinstance(answer, Position)
        return answer


@pytest.fixture
async def node(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node whose tasks start again at once."""
    monkeypatch.setattr(tasks, "AGAIN_S", (0.0, 0.0))
    options = engines("redis").options()
    state = await EngineState.open(options)
    broker, values = EngineBroker(options, max_channels=10), Values()
    broker.attach(values, after=(await broker.load()).delivery_position)
    yield Node(state, broker, values)
    await broker.aclose()
    await state.aclose()


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Let the next call of a method raise what nobody expects."""
    method = getattr(owner, name)

    def raising(*_arguments: Any, **_options: Any) -> Any:
        monkeypatch.setattr(owner, name, method)
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(owner, name, raising)


async def act(node: Node) -> None:
    """Do one of each: claims, revocations and publications. What fails is an error that callers know."""
    for _ in range(2):
        with contextlib.suppress(UnavailableError):
            await node.state.claim("jti", expires_at=FUTURE + 30, issued_at=FUTURE)
        with contextlib.suppress(UnavailableError):
            await node.state.revoke("s", at=time.time(), until=FUTURE)
        with contextlib.suppress(UnavailableError):
            await node.publish(1)


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("state._line", "_answer"),
        ("claims._line", "_answer"),
        ("claims.batches", "_send"),
        ("state._reader", "_accept"),
        ("state._reader", "_entries"),
        ("shard._line", "_answer"),
        ("shard._batches", "_send"),
        ("shard._reader", "_accept"),
        ("shard._reader", "_compare"),
    ],
)
async def test_a_fault_in_a_task_is_an_error_for_its_callers_and_no_end(
    node: Node, monkeypatch: pytest.MonkeyPatch, part: str, method: str
) -> None:
    """No caller waits without end, the restart is counted, and claims, revocations and prices go on."""
    owner: Any = node
    for name in part.split("."):
        owner = getattr(owner, name)
    fail_once(monkeypatch, owner, method)
    async with asyncio.timeout(30):
        await act(node)
        await until(lambda: owner.task.restarts == 1)
        assert node.state.restarts + node.broker.restarts == 1
        assert await node.state.claim("next", expires_at=FUTURE + 30, issued_at=FUTURE)
        await node.publish(2)
        await until(lambda: node.values.last.get("a") and node.values.last["a"].data == b"2")
        await node.state.revoke("t", at=time.time(), until=FUTURE)
        await until(lambda: not node.state.is_blind)


async def test_an_entry_that_could_not_be_accepted_is_not_skipped(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader begins again from the last values, so the value of that entry comes all the same."""
    await node.publish(1)
    await until(lambda: node.values.last)
    fail_once(monkeypatch, node.broker.shards[0]._reader, "_accept")
    await node.publish(2)
    await until(lambda: node.values.last["a"].data == b"2")
    assert node.broker.resyncs == 1


async def test_families_are_watched_again_after_a_fault(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the node knows is written back then, because it may be missing."""
    monkeypatch.setattr(tasks, "AGAIN_S", (0.0, 0.0))
    monkeypatch.setattr(engine_families, "_LOOK_EVERY_S", 0.01)
    store = await EngineFamilies.open(engines("redis").options())
    try:
        restored: list[bool] = []
        restore = store._restore

        async def restoring() -> None:
            await restore()
            restored.append(True)

        monkeypatch.setattr(store, "_restore", restoring)
        fail_once(monkeypatch, store, "_call")
        await until(lambda: restored)
        assert store.restarts == 1
    finally:
        await store.aclose()


async def test_a_caller_that_is_cancelled_while_it_closes_stays_cancelled() -> None:
    """Else its own time limit would be over without a word, and it would go on."""
    ends = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await ends.wait()

    task = tasks.LastingTask(slow_to_end, name="slow")
    await asyncio.sleep(0)  # it runs
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await task.aclose()
    ends.set()
    await task.aclose()


@pytest.mark.parametrize("kind", [EngineState, EngineFamilies])
async def test_a_close_that_is_cancelled_at_each_step_leaves_no_task(
    engines: Engines, kind: type[EngineState | EngineFamilies]
) -> None:
    """A time limit of the caller may end while the parts are closed one after the other."""
    part = await kind.open(engines("redis").options())
    closing = asyncio.create_task(part.aclose())
    while not closing.done():
        await asyncio.sleep(0)
        closing.cancel()
    assert closing.cancelled()
    await until(lambda: not engine_tasks())
