"""The broker in a real engine, for two nodes, and through faults of the engine."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.broker.base import Broker, Dropped, Position
from relay.broker.memory import MemoryBroker
from relay.core.errors import MalformedError, UnavailableError
from relay.core.publications import Publication, parse_draft
from relay.engine import log_reader
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.options import EngineOptions
from tests.support.engine_invariants import Hub
from tests.support.engines import Engines, EngineServer, until


class Node(Hub):
    """A receiver that keeps the last values and all publications, as a hub would."""

    def value(self, channel: str) -> object:
        """Return a channel's last value."""
        return json.loads(self.last[channel].data) if channel in self.last else None


@contextlib.asynccontextmanager
async def node_on(options: EngineOptions) -> AsyncIterator[tuple[EngineBroker, Node]]:
    """Run one node."""
    broker, node = (
        EngineBroker(options, max_channels=100, history_of=lambda _: KeptHistory(messages=1000, seconds=60)),
        Node(),
    )
    loaded = await broker.load()
    for publication in loaded.values:
        node.publish(publication)
    broker.attach(node, after=loaded.delivery_position)
    yield broker, node
    await broker.aclose()


async def publish(broker: Broker, channel: str, value: int, **members: object) -> Position:
    """Publish one value, which must not be dropped."""
    draft = parse_draft(json.dumps({"channel": channel, "data": value, **members}).encode())
    position = await broker.publish(draft, ts=1000)
    assert isinstance(position, Position)
    return position


async def test_each_node_gets_what_both_publish(own_engine: EngineServer) -> None:
    """In one order a channel, without a gap, and a node that starts later has the last values."""
    options = own_engine.options()
    async with node_on(options) as (one, node), node_on(options) as (two, other):
        await asyncio.gather(*(publish((one, two)[n % 2], f"c{n % 7}", n) for n in range(700)))
        await until(lambda: len(node.got) == len(other.got) == 700)
        assert node.got == other.got
        for channel in range(7):
            assert [p.seq for p in node.got if p.channel == f"c{channel}"] == list(range(1, 101))
        async with node_on(options) as (_, later):
            assert later.last == node.last


async def test_a_node_knows_how_far_behind_it_is(
    own_engine: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks while there is always more to read, and is not behind when it has read all."""
    monkeypatch.setattr(log_reader, "_MAX_ENTRIES", 4)
    monkeypatch.setattr(log_reader, "_COMPARE_EVERY_S", 0.0)
    options = own_engine.options()
    async with node_on(options) as (one, _), node_on(options) as (two, other):
        after = (await one.load()).delivery_position
        for value in range(20):
            await publish(one, "a", value)
        await until(lambda: other.value("a") == 19)
        assert two.behind == 0
        behind: list[int] = []

        class Late(Node):
            def publish(self, publication: Publication) -> None:
                behind.append(two.behind)
                super().publish(publication)

        late = Late()
        two.attach(late, after=after)
        await until(lambda: late.value("a") == 19)
        assert behind == [20] * 4 + [16] * 4 + [12] * 4 + [8] * 4 + [4] * 4
        await until(lambda: two.behind == 0)


async def test_a_node_behind_a_cut_log_takes_the_values_of_now(own_engine: EngineServer) -> None:
    """Its stream channels are completed from the history, removed channels are forgotten, and the log stays small."""
    options = own_engine.options(log_bytes=4096)
    async with node_on(options) as (one, _), node_on(options) as (two, other):
        await publish(one, "gone", 1)
        await until(lambda: other.value("gone") == 1)
        reader = two.shards[0]._reader
        assert reader is not None
        await reader.aclose()  # this node stands still
        await one.remove("gone")
        for value in range(300):
            await publish(one, "a", value)
        assert own_engine.run("XLEN", one.shards[0]._keys[5]) < 300
        assert reader.position is not None
        two.attach(other, after=f"{reader.position[0]}-{reader.position[1]}")
        two.shards[0]._delivered = dict(other.last)
        await until(lambda: other.value("a") == 299)
        assert other.value("gone") is None
        assert two.resyncs == 1


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_life_that_begins_while_a_node_catches_up_leaves_no_gap(
    own_engine: EngineServer, monkeypatch: pytest.MonkeyPatch, is_empty: bool
) -> None:
    """What the node missed of the life before is gone then, so it takes no later value of that life either.

    After a failover without a loss the old value is there until the first publication of the new life.
    """
    options = own_engine.options()
    async with node_on(options) as (one, _), node_on(options) as (two, other):
        await publish(one, "a", 1)
        await until(lambda: other.value("a") == 1)
        shard = two.shards[0]
        assert shard._reader is not None
        await shard._reader.aclose()  # this node stands still
        for value in (2, 3):
            await publish(one, "a", value)
        history = shard.history

        async def lost(channel: str, *, after: Position) -> object:
            monkeypatch.setattr(shard, "history", history)
            if is_empty:
                own_engine.run("FLUSHALL")
            await publish(one, "a", 4)
            return await history(channel, after=after)

        monkeypatch.setattr(shard, "history", lost)
        if not is_empty:
            own_engine.run("HSET", shard._keys[0], "replid", "0" * 40)  # as if another server had written all
        two.attach(other, after="1-0")  # an entry of an older life
        shard._delivered = dict(other.last)
        await until(lambda: other.value("a") == 4)
        assert [json.loads(one.data) for one in other.got] == [1, 4]


async def test_an_engine_that_is_away_refuses_publications(own_engine: EngineServer) -> None:
    """The publisher is told that it does not know; later ones go on."""
    async with node_on(own_engine.options()) as (broker, node):
        own_engine.stop()
        with pytest.raises(UnavailableError, match=r"unknown whether|Nothing was published"):
            await publish(broker, "a", 1)
        own_engine.start()
        await publish(broker, "a", 2)
        await until(lambda: node.value("a") == 2)


STEP = st.tuples(
    st.sampled_from(["publish", "publish", "publish", "alive", "reset", "remove"]),
    st.sampled_from("abc"),
    st.one_of(st.none(), st.integers(0, 3)),
    st.one_of(st.none(), st.sampled_from("kl")),
)


async def outcomes(broker: Broker, steps: list[tuple[str, str, int | None, str | None]]) -> list[object]:
    """Return what each step answers, without the epoch. The steps are sent at once, so an engine gets batches."""

    async def step(kind: str, channel: str, version: int | None, key: str | None) -> object:
        if kind == "alive":
            return (await broker.alive(channel, ts=1)).seq
        if kind == "reset":
            return await broker.reset(channel)
        if kind == "remove":
            return await broker.remove(channel)
        members = {"version": version, "idempotency_key": key}
        body = {"channel": channel, "data": 1} | {k: v for k, v in members.items() if v is not None}
        try:
            outcome = await broker.publish(parse_draft(json.dumps(body).encode()), ts=1)
        except MalformedError:
            return "refused"
        return (outcome.why, outcome.position.seq) if isinstance(outcome, Dropped) else outcome.seq

    return await asyncio.gather(*(step(*one) for one in steps))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.lists(STEP, min_size=1, max_size=12), min_size=1, max_size=4))
async def test_an_engine_answers_as_the_memory_does(
    engines: Engines, steps: list[list[tuple[str, str, int | None, str | None]]]
) -> None:
    """Publications, versions, keys, resets and removals in any order, in one batch or in several."""
    memory = MemoryBroker(max_channels=2)
    engine = EngineBroker(engines("redis").options(), max_channels=2)
    try:
        for batch in steps:
            assert await outcomes(engine, batch) == await outcomes(memory, batch)
        memory_values = {p.channel: (p.seq, p.data) for p in (await memory.load()).values}
        assert {p.channel: (p.seq, p.data) for p in (await engine.load()).values} == memory_values
    finally:
        await engine.aclose()
