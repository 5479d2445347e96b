"""The guarantees of `relay.broker.base`. A new adapter is added to the fixture `broker`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from relay.broker.base import Broker, Dropped, Position
from relay.broker.memory import MemoryBroker
from relay.core.errors import MalformedError
from relay.core.publications import Publication, parse_draft
from relay.core.sequencer import Drop
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.shards import place
from tests.support.engines import ENGINES, Engines

B, C = "b.5", "c.11"
"""Channels that are in one shard with "a": what is promised of several channels holds within an epoch."""


class Node:
    """A receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.signs: list[tuple[str, int]] = []
        self.removed: list[str] = []
        self._changed = asyncio.Event()

    async def until(
        self, publications: int | None = None, *, signs: int | None = None, removed: int | None = None
    ) -> None:
        """Wait until it has got this many: an engine delivers later than it answers."""
        async with asyncio.timeout(20):
            while (
                len(self.publications) < (publications or 0)
                or len(self.signs) < (signs or 0)
                or len(self.removed) < (removed or 0)
            ):
                self._changed.clear()
                await self._changed.wait()
        assert publications in (None, len(self.publications))
        assert signs in (None, len(self.signs))
        assert removed in (None, len(self.removed))

    def publish(self, publication: Publication) -> None:
        """See `Receiver.publish`."""
        self.publications.append(publication)
        self._changed.set()

    def alive(self, channel: str, *, ts: int) -> None:
        """See `Receiver.alive`."""
        self.signs.append((channel, ts))
        self._changed.set()

    def remove(self, name: str) -> None:
        """See `Receiver.remove`."""
        self.removed.append(name)
        self._changed.set()

    def delivered(self, entry: int, epoch: str, *, log: int = 0) -> None:
        """See `Receiver.delivered`."""


@pytest.fixture
def node() -> Node:
    """The receiver."""
    return Node()


@contextlib.asynccontextmanager
async def made(kind: str, engines: Engines) -> AsyncIterator[Broker]:
    """Make a broker with room for two channels."""
    if kind == "memory":
        yield MemoryBroker(max_channels=2)
        return
    broker = EngineBroker(
        engines.options(kind),
        max_channels=2,
        history_of=lambda _: KeptHistory(messages=10, seconds=60),
    )
    yield broker
    await broker.aclose()


@pytest.fixture(params=["memory", *ENGINES])
async def broker(request: pytest.FixtureRequest, node: Node, engines: Engines) -> AsyncIterator[Broker]:
    """A new broker with room for two channels, and a receiver."""
    async with made(request.param, engines) as broker:
        broker.attach(node, after=(await broker.load()).delivery_position)
        yield broker


def epoch_of(broker: Broker) -> str:
    """Return the epoch of the channels of these tests."""
    return (
        broker.shards[place("a", len(broker.shards))].epoch
        if isinstance(broker, EngineBroker)
        else broker.epoch
    )


async def publish(broker: Broker, more: str = "", channel: str = "a") -> Position | Dropped:
    """Publish one value."""
    return await broker.publish(
        parse_draft(f'{{"channel":"{channel}","data":[1.0]{more}}}'.encode()), ts=1000
    )


async def test_publications_are_numbered_and_delivered(broker: Broker, node: Node) -> None:
    """Numbers start at 1, in one epoch, and the data has the bytes that were sent."""
    first = await publish(broker, ',"source_ts":7')
    second = await publish(broker)
    assert [first, second] == [
        Position(epoch=epoch_of(broker), seq=1),
        Position(epoch=epoch_of(broker), seq=2),
    ]
    await node.until(2)
    assert [(p.channel, p.epoch, p.seq, p.ts, p.data, p.source_ts) for p in node.publications] == [
        ("a", epoch_of(broker), 1, 1000, b"[1.0]", 7),
        ("a", epoch_of(broker), 2, 1000, b"[1.0]", None),
    ]


async def test_what_came_before_is_dropped(broker: Broker, node: Node) -> None:
    """The answer has the position of the kept one, and nothing is delivered."""
    await publish(broker, ',"version":5,"idempotency_key":"k"')
    await publish(broker, ',"version":6')
    stale = await publish(broker, ',"version":6')
    known = await publish(broker, ',"version":9,"idempotency_key":"k"')
    assert stale == Dropped(why=Drop.STALE, position=Position(epoch=epoch_of(broker), seq=2))
    assert known == Dropped(why=Drop.DUPLICATE, position=Position(epoch=epoch_of(broker), seq=1))
    await publish(broker, channel=B)
    await node.until(3)
    assert ([p.seq for p in node.publications], node.signs) == ([1, 2, 1], [])


async def test_a_sign_of_life_is_no_value(broker: Broker, node: Node) -> None:
    """It reaches the node, its answer has the channel's position, and it creates no value."""
    assert await broker.alive("a", ts=1) == Position(epoch=epoch_of(broker), seq=0)
    await publish(broker)
    assert await broker.alive("a", ts=2) == Position(epoch=epoch_of(broker), seq=1)
    await node.until(1, signs=2)
    assert node.signs == [("a", 1), ("a", 2)]


async def test_a_reset_channel_begins_its_versions_anew(broker: Broker) -> None:
    """Its numbers go on."""
    await publish(broker, ',"version":99')
    assert isinstance(await publish(broker, ',"version":1'), Dropped)
    assert await broker.reset("a")
    assert await publish(broker, ',"version":1') == Position(epoch=epoch_of(broker), seq=2)
    assert not await broker.reset(B)


async def test_a_channel_above_the_limit_is_refused(broker: Broker, node: Node) -> None:
    """One more is refused and changes nothing."""
    await publish(broker)
    await publish(broker, channel=B)
    with pytest.raises(MalformedError):
        await publish(broker, channel=C)
    await publish(broker)
    await node.until(3)
    assert [p.channel for p in node.publications] == ["a", B, "a"]


async def test_a_removed_channel_makes_room_and_comes_back_above_its_numbers(
    broker: Broker, node: Node
) -> None:
    """Each node is told. Any new channel begins above the highest number of all removed ones, and so it stays."""
    for _ in range(3):
        await publish(broker, channel="a")
    await publish(broker, ',"version":9,"idempotency_key":"k"', channel=B)
    assert await broker.remove("a")
    assert await broker.remove(B)
    assert not await broker.remove("a")
    await node.until(removed=2)
    assert node.removed == ["a", B]
    assert list((await broker.load()).values) == []
    assert await broker.alive("a", ts=1) == Position(epoch=epoch_of(broker), seq=0)
    for channel in (B, C):  # there is room for two again
        first = await publish(broker, ',"version":1,"idempotency_key":"k"', channel=channel)
        second = await publish(broker, channel=channel)
        assert [first, second] == [
            Position(epoch=epoch_of(broker), seq=4),
            Position(epoch=epoch_of(broker), seq=5),
        ]
    assert await broker.remove(C)
    assert await publish(broker, channel="a") == Position(epoch=epoch_of(broker), seq=6)


async def test_a_channel_that_was_published_to_is_not_removed(broker: Broker, node: Node) -> None:
    """With a position, only a channel that is still there is removed: its publisher may come back at this moment."""
    seen = await publish(broker)
    assert isinstance(seen, Position)
    newest = await publish(broker)
    assert isinstance(newest, Position)
    assert not await broker.remove("a", at=seen)
    assert not await broker.remove("unknown", at=seen)
    assert node.removed == []
    assert await broker.remove("a", at=newest)
    await node.until(2, removed=1)


async def test_a_removal_moves_the_delivery_position(broker: Broker) -> None:
    """A node that loads the values before it must not be attached after it."""
    await publish(broker)
    before = (await broker.load()).delivery_position
    await broker.remove("a")
    assert (await broker.load()).delivery_position != before


async def test_a_new_broker_has_no_values(broker: Broker) -> None:
    """The first node starts with nothing."""
    assert list((await broker.load()).values) == []


async def test_a_node_that_starts_later_has_every_last_value(broker: Broker, node: Node) -> None:
    """It loads the last values that the first node got, without dropped ones, and then gets later publications."""
    await publish(broker, ',"version":5')
    await publish(broker, ',"version":6,"source_ts":7')
    await publish(broker, ',"version":6')
    await broker.alive(B, ts=1)
    await publish(broker, channel=B)
    loaded = await broker.load()
    await node.until(3)
    newest = {publication.channel: publication for publication in node.publications}
    assert {publication.channel: publication for publication in loaded.values} == newest
    assert len(loaded.values) == 2
    later = Node()
    broker.attach(later, after=loaded.delivery_position)
    await publish(broker)
    await later.until(1)
    assert [(p.channel, p.seq) for p in later.publications] == [("a", 3)]


async def test_each_publication_moves_the_delivery_position(broker: Broker) -> None:
    """A node can tell that it would miss one. Dropped publications do not move the position."""
    before = (await broker.load()).delivery_position
    await publish(broker, ',"version":1')
    after = (await broker.load()).delivery_position
    assert after != before
    await publish(broker, ',"version":1')
    assert (await broker.load()).delivery_position == after


async def test_a_history_is_whole_or_none(broker: Broker, node: Node) -> None:
    """It has all publications after the position, in order. An unknown epoch or channel has none."""
    for _ in range(4):
        await publish(broker)
    kept = await broker.history("a", after=Position(epoch=epoch_of(broker), seq=2))
    await node.until(4)
    assert kept is None or list(kept) == node.publications[2:]
    assert await broker.history("a", after=Position(epoch="another", seq=2)) is None
    assert await broker.history(B, after=Position(epoch=epoch_of(broker), seq=0)) is None


async def test_the_memory_broker_has_no_history_beside_the_hubs() -> None:
    """The hub got every publication. What it does not keep any more is gone."""
    broker = MemoryBroker(max_channels=2)
    await publish(broker)
    assert await broker.history("a", after=Position(epoch=broker.epoch, seq=0)) is None


async def test_a_gap_before_the_memory_brokers_delivery_is_refused() -> None:
    """It delivers by a call, so it can't bring what was published between `load` and `attach`."""
    broker = MemoryBroker(max_channels=2)
    loaded = await broker.load()
    await publish(broker)
    with pytest.raises(ValueError, match="call load again"):
        broker.attach(Node(), after=loaded.delivery_position)
