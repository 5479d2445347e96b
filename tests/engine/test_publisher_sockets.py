"""Publishers' sockets of a node on a real engine: batches, a lost reply, and an engine that goes away."""

import contextlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any

from relay.broker.memory import MemoryBroker
from relay.engine.broker import EngineBroker
from relay.engine.options import EngineOptions
from tests.support.engine_invariants import Hub
from tests.support.engines import Engines, EngineServer, lossy_link, until
from tests.support.ingest_node import IngestNode, ingest_node
from tests.support.publisher_socket import Publishing, publishing


@contextlib.asynccontextmanager
async def engine_node(options: EngineOptions) -> AsyncIterator[tuple[IngestNode, EngineBroker, Hub]]:
    """Run an ingest over an engine, with a receiver."""
    broker, hub = EngineBroker(options, max_channels=100), Hub()
    broker.attach(hub, after=(await broker.load()).delivery_position)
    try:
        async with ingest_node(broker) as node:
            yield node, broker, hub
    finally:
        await broker.aclose()


async def answers(publisher: Publishing, last: int) -> list[dict[str, Any]]:
    """Read all answers up to the ack of an id."""
    found = [await publisher.next()]
    while found[-1].get("upto", 0) < last:
        found.append(await publisher.next())
    return found


async def test_a_socket_fills_batches(engines: Engines) -> None:
    """A thousand messages are acknowledged in order and delivered once, in at most a few dozen scripts."""
    async with (
        engine_node(engines("redis").options()) as (node, broker, hub),
        publishing(node) as publisher,
    ):
        for start in range(0, 1000, 200):
            await publisher.send(*(publisher.line("prices.A", start + n) for n in range(200)))
        acks = await answers(publisher, 1000)
        assert [ack["upto"] for ack in acks] == [200, 400, 600, 800, 1000]
        await until(lambda: len(hub.got) == 1000)
        assert [int(one.data) for one in hub.got] == list(range(1000))
        assert broker.shards[0]._batch < 100


async def test_a_lost_reply_changes_nothing_for_the_publisher(engines: Engines) -> None:
    """The batch is sent again and gets its positions of then: no error, and nothing twice."""
    server = engines("redis")
    async with (
        lossy_link(server.port) as link,
        engine_node(server.options(f"redis://127.0.0.1:{link.port}")) as (node, _, hub),
        publishing(node) as publisher,
    ):
        for number in range(5):
            link.lose_reply_to(b"EVALSHA")
            await publisher.send(*(publisher.line("prices.A", number * 100 + n) for n in range(100)))
        assert all(one["type"] == "ack" for one in await answers(publisher, 500))
        assert link.lost >= 1
        await until(lambda: len(hub.got) == 500)
        assert [int(one.data) for one in hub.got] == list(range(500))


async def test_an_engine_that_goes_away_answers_each_message(own_engine: EngineServer) -> None:
    """Each has one answer, in order: an ack or `unavailable`. Later ones go on."""
    async with engine_node(own_engine.options()) as (node, _, hub), publishing(node) as publisher:
        await publisher.send(*(publisher.line("prices.A", n) for n in range(1, 101)))
        assert (await publisher.next())["upto"] == 100
        for start in range(101, 1001, 100):
            await publisher.send(*(publisher.line("prices.A", n) for n in range(start, start + 100)))
            if start == 401:
                own_engine.stop()
        found = await answers(publisher, 1000)
        errors = [one["id"] for one in found if one["type"] == "error"]
        assert errors
        assert errors == sorted(set(errors))
        assert {one["code"] for one in found if one["type"] == "error"} == {"unavailable"}
        own_engine.start()
        while True:  # the connection's first attempts may be too early
            await publisher.send(publisher.line("prices.A", publisher.id + 1))
            if (await answers(publisher, publisher.id))[0]["type"] == "ack":
                break
        await until(lambda: int(hub.last["prices.A"].data) == publisher.id)
        counts = node.ingest.counts["pricing"]
        assert counts.published + counts.refused == publisher.id


Message = tuple[str, str, int | None, str | None]


def _frames(random: Random) -> list[list[Message]]:
    return [
        [
            (
                random.choice(["prices.A", "prices.B", "trades.A", "orders.A"]),
                random.choice(["value", "value", "alive", "malformed"]),
                random.choice([None, 0, 1, 2, 3]),
                random.choice([None, "k", "l"]),
            )
            for _ in range(random.randrange(1, 40))
        ]
        for _ in range(random.randrange(1, 6))
    ]


async def test_an_engine_answers_a_socket_as_the_memory_does(engines: Engines) -> None:
    """Values, signs of life, versions, keys and what is malformed, in any frames: the same frames in the same order."""
    async with (
        engine_node(engines("redis").options()) as (on_engine, _, _),
        ingest_node(MemoryBroker(max_channels=100)) as in_memory,
    ):
        for seed in range(25):
            found = []
            frames = _frames(Random(seed))
            for node in (in_memory, on_engine):
                async with publishing(node) as publisher:
                    for frame in frames:
                        await publisher.send(*(_line(publisher, seed, message) for message in frame))
                    found.append([_without_epochs(one) for one in await answers(publisher, publisher.id)])
            assert found[0] == found[1], seed


def _line(publisher: Publishing, suffix: int, message: Message) -> str:
    channel, kind, version, key = message
    channel += str(suffix)
    if kind == "alive":
        return publisher.line(channel, 1, alive=True).replace('"data": 1, ', "")
    more: dict[str, Any] = {"version": version, "idempotency_key": key}
    more = {name: value for name, value in more.items() if value is not None}
    return publisher.line(channel, 1, **more | ({"version": -1} if kind == "malformed" else {}))


def _without_epochs(answer: dict[str, Any]) -> dict[str, Any]:
    epochs = answer.pop("epoch", {})
    return answer | {"told": sorted(epochs)}
