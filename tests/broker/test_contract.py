"""What every broker promises, as `relay.broker.base` says it. There is one adapter; the next is added to `brokers`."""

from collections.abc import Callable

import pytest

from relay.broker.base import Broker, Dropped, Position
from relay.broker.memory import MemoryBroker
from relay.core.errors import MalformedError
from relay.core.publications import Publication, parse_draft
from relay.core.sequencer import Drop

MakeBroker = Callable[[], Broker]


class Node:
    """A receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.signs: list[tuple[str, int]] = []

    def publish(self, publication: Publication) -> None:
        """See `Receiver.publish`."""
        self.publications.append(publication)

    def alive(self, channel: str, *, ts: int) -> None:
        """See `Receiver.alive`."""
        self.signs.append((channel, ts))


@pytest.fixture
def node() -> Node:
    """The receiver."""
    return Node()


@pytest.fixture(params=[lambda: MemoryBroker(max_channels=2)], ids=["memory"])
def broker(request: pytest.FixtureRequest, node: Node) -> Broker:
    """A new broker with room for two channels, and a receiver."""
    made: Broker = request.param()
    made.attach(node)
    return made


async def publish(broker: Broker, more: str = "", channel: str = "a") -> Position | Dropped:
    """Publish one value."""
    return await broker.publish(
        parse_draft(f'{{"channel":"{channel}","data":[1.0]{more}}}'.encode()), ts=1000
    )


async def test_publications_are_numbered_and_delivered(broker: Broker, node: Node) -> None:
    """From 1, in one epoch, with the bytes that came."""
    first = await publish(broker, ',"source_ts":7')
    second = await publish(broker)
    assert [first, second] == [
        Position(epoch=broker.epoch, seq=1),
        Position(epoch=broker.epoch, seq=2),
    ]
    assert [(p.channel, p.epoch, p.seq, p.ts, p.data, p.source_ts) for p in node.publications] == [
        ("a", broker.epoch, 1, 1000, b"[1.0]", 7),
        ("a", broker.epoch, 2, 1000, b"[1.0]", None),
    ]


async def test_what_came_before_is_dropped(broker: Broker, node: Node) -> None:
    """It is told where the kept one stands, and nothing is delivered."""
    await publish(broker, ',"version":5,"idempotency_key":"k"')
    await publish(broker, ',"version":6')
    stale = await publish(broker, ',"version":6')
    known = await publish(broker, ',"version":9,"idempotency_key":"k"')
    assert stale == Dropped(why=Drop.STALE, position=Position(epoch=broker.epoch, seq=2))
    assert known == Dropped(why=Drop.DUPLICATE, position=Position(epoch=broker.epoch, seq=1))
    assert (len(node.publications), node.signs) == (2, [])


async def test_a_sign_of_life_is_no_value(broker: Broker, node: Node) -> None:
    """It reaches the node, says where the channel stands, and makes none."""
    assert await broker.alive("a", ts=1) == Position(epoch=broker.epoch, seq=0)
    await publish(broker)
    assert await broker.alive("a", ts=2) == Position(epoch=broker.epoch, seq=1)
    assert (len(node.publications), node.signs) == (1, [("a", 1), ("a", 2)])


async def test_a_reset_channel_begins_its_versions_anew(broker: Broker) -> None:
    """Its numbers go on."""
    await publish(broker, ',"version":99')
    assert isinstance(await publish(broker, ',"version":1'), Dropped)
    assert await broker.reset("a")
    assert await publish(broker, ',"version":1') == Position(epoch=broker.epoch, seq=2)
    assert not await broker.reset("b")


async def test_a_channel_above_the_limit_is_refused(broker: Broker, node: Node) -> None:
    """One more is refused and changes nothing."""
    await publish(broker)
    await publish(broker, channel="b")
    with pytest.raises(MalformedError):
        await publish(broker, channel="c")
    await publish(broker)
    assert [p.channel for p in node.publications] == ["a", "b", "a"]
