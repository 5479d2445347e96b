"""What a node does while the engine is silent: each row with times that the test sets."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog.testing

from relay.core.errors import Reason, UnavailableError
from relay.core.publications import Publication
from relay.engine.clock_offset import ClockOffset
from relay.engine.eviction import Eviction
from relay.engine.health import Health
from relay.engine.pulse import Pulse
from relay.server.engine import EngineWatch
from tests.support.raw_websocket import until
from tests.support.stream_node import Node, running_node


class Clocks:
    """A monotonic and a wall clock that stand still."""

    def __init__(self) -> None:
        self.steady = 1000.0
        self.wall = 1_790_000_000.0


class Engine:
    """An engine that answers when the test says so."""

    def __init__(self, *, blind_s: float = 30, ready_after_s: float = 5) -> None:
        self.clocks = Clocks()
        self.control, self.log, self.writes = (Pulse(lambda: self.clocks.steady) for _ in range(3))
        self.offset = ClockOffset(lambda: self.clocks.wall)
        self.eviction = Eviction()
        self.health = Health(
            control=self.control,
            writes=self.writes,
            logs=[self.log],
            offset=self.offset,
            blind_s=blind_s,
            ready_after_s=ready_after_s,
            evictions=[self.eviction],
        )

    def silence(self, seconds: float) -> None:
        """Let time pass without an answer."""
        self.clocks.steady += seconds

    def answer(self, seconds: float = 0, *, stores: bool = True) -> None:
        """Answer both readers now, and twice a second for so many seconds; and store signs of life."""
        for step in range(int(2 * seconds) + 1):
            self.clocks.steady += 0.5 if step else 0
            self.control.beat()
            self.log.beat()
            if stores:
                self.writes.beat()

    def differ(self, seconds: float) -> None:
        """Tell the node the engine's time, which is so far ahead."""
        for _ in range(5):
            self.offset.sample(self.clocks.wall, self.clocks.wall + seconds)


def test_the_gate_closes_after_a_second() -> None:
    """And opens with the next answer."""
    engine = Engine()
    engine.silence(1.0)
    assert engine.health.gate_closed is None
    engine.silence(0.1)
    assert engine.health.gate_closed is Reason.NODE_BLIND
    engine.answer()
    assert engine.health.gate_closed is None


def test_connections_end_after_blind_s() -> None:
    """With 0 they never do."""
    for blind_s, expected in ((30, True), (0, False)):
        engine = Engine(blind_s=blind_s)
        engine.silence(30)
        assert not engine.health.must_end_connections
        engine.silence(1)
        assert engine.health.must_end_connections is expected


def test_tokens_are_issued_for_a_minute() -> None:
    """Then the issuer says that it can't know who was revoked."""
    engine = Engine()
    engine.silence(60)
    engine.health.check_revocations()
    assert engine.health.issuer_unready is None
    engine.silence(1)
    with pytest.raises(UnavailableError, match="61 s") as refused:
        engine.health.check_revocations()
    assert refused.value.reason is Reason.NODE_BLIND
    assert "61 s" in str(engine.health.issuer_unready)
    engine.answer()
    engine.health.check_revocations()


def test_a_node_is_ready_again_after_two_seconds_of_answers() -> None:
    """A short silence does not make it unready, and one answer does not make it ready."""
    engine = Engine()
    engine.silence(5)
    assert engine.health.stream_unready is engine.health.ingest_unready is None
    engine.silence(1)
    assert "6 s" in str(engine.health.stream_unready)
    assert "6 s" in str(engine.health.ingest_unready)
    engine.answer(1.5)
    assert "just begun" in str(engine.health.stream_unready)
    engine.silence(1.5)
    engine.answer(1.5)  # the answers have to come without a gap
    assert "just begun" in str(engine.health.stream_unready)
    engine.answer(1)
    assert engine.health.stream_unready is engine.health.ingest_unready is None
    engine.silence(2)
    engine.answer()
    assert engine.health.stream_unready is None


def test_an_engine_that_stores_nothing_makes_a_stream_and_an_ingest_unready() -> None:
    """It answers, but no token can be used and nothing can be published. The reason is told."""
    engine = Engine()
    engine.writes.fault = "The engine stores nothing. OOM"
    engine.answer(5, stores=False)
    assert engine.health.stream_unready is engine.health.ingest_unready is None
    engine.answer(1, stores=False)
    assert engine.health.stream_unready == engine.health.ingest_unready == "The engine stores nothing. OOM"
    assert engine.health.issuer_unready is engine.health.gate_closed is None
    engine.answer()
    assert "just begun" in str(engine.health.stream_unready)
    engine.answer(2.5)
    assert engine.health.stream_unready is engine.health.ingest_unready is None


def test_an_engine_that_may_evict_keys_is_a_warning_until_it_has_evicted_some() -> None:
    """All nodes have the same engine, so none is better. What was evicted before it was asked is no news."""
    engine = Engine()
    policy = "maxmemory_policy:{}\r\nevicted_keys:{}\r\n"
    told = [
        ("noeviction", 3, "", ""),
        ("volatile-lru", 3, "policy volatile-lru", ""),
        ("volatile-lru", 5, "policy volatile-lru", "evicted at least 2 keys"),
        ("noeviction", 5, "", ""),
        ("volatile-lru", 0, "policy volatile-lru", ""),  # it was restarted
        ("volatile-lru", 1, "policy volatile-lru", "evicted at least 1 key,"),
    ]
    for name, evicted, warning, unready in told:
        engine.eviction.told(policy.format(name, evicted).encode())
        assert warning in str(engine.health.warning or "")
        assert bool(warning) == (engine.health.warning is not None)
        assert unready in str(engine.health.stream_unready or "")
        assert bool(unready) == (engine.health.stream_unready is not None)
        assert engine.health.ingest_unready is engine.health.issuer_unready is None


def test_half_of_the_shards_of_a_cluster_may_be_silent() -> None:
    """Their prices are stale. Other nodes see the same masters, so clients need not go elsewhere."""
    clocks = Clocks()
    control, *logs = (Pulse(lambda: clocks.steady) for _ in range(17))
    health = Health(
        control=control,
        writes=control,
        logs=logs,
        offset=ClockOffset(lambda: clocks.wall),
        blind_s=30,
        ready_after_s=5,
    )
    for silent, is_ready in ((6, True), (7, True), (8, False)):
        for _ in range(20):
            clocks.steady += 0.5
            for pulse in (control, *logs[silent:]):
                pulse.beat()
        assert health.silent_shards == set(range(silent))
        assert (health.ingest_unready is None, health.stream_unready is None) == (is_ready, is_ready)
        assert health.gate_closed is None


def test_a_clock_that_is_a_second_off_makes_a_stream_unready() -> None:
    """Its claims would be refused. Publications need no clock."""
    engine = Engine()
    engine.differ(-0.9)
    assert engine.health.stream_unready is None
    engine.differ(-1.1)
    assert "+1.1 s" in str(engine.health.stream_unready)
    assert engine.health.ingest_unready is engine.health.issuer_unready is None


def test_the_answer_that_came_fastest_tells_the_time() -> None:
    """A sample from a busy moment does not count."""
    clocks = Clocks()
    offset = ClockOffset(lambda: clocks.wall)
    for waited_s, answered in ((0.001, 0.0005), (3.0, 0.0), (2.0, 2.0)):
        sent_at = offset.now()
        clocks.wall += waited_s
        offset.sample(sent_at, sent_at + answered)
    assert abs(offset.seconds) < 0.001


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A stream."""
    async with running_node(tmp_path) as running:
        yield running


async def test_prices_are_stale_without_an_engine_and_live_with_the_next_one(node: Node) -> None:
    """After two seconds, each channel for itself."""
    engine = Engine()
    watch = EngineWatch(engine.health, node.fanout.hub, node.stream)
    node.publish("prices.A")
    node.publish("prices.B")
    async with node.dial("&channels=prices.A,prices.B") as wire:
        assert await wire.shake() == 101
        for _ in "AB":
            await wire.message("snapshot")
        engine.silence(2)
        await watch.look()
        engine.silence(0.1)
        await watch.look()
        stale = [await wire.message("status") for _ in "AB"]
        assert {(one["channel"], one["state"]) for one in stale} == {
            ("prices.A", "stale"),
            ("prices.B", "stale"),
        }
        engine.answer()
        await watch.look()
        node.publish("prices.A")
        update = await wire.message("update")
        live = await wire.message("status")
        assert (update["channel"], live["channel"], live["state"]) == ("prices.A", "prices.A", "live")


async def test_a_blind_node_ends_its_connections(node: Node) -> None:
    """With 1012, so that clients come back, to another node; the log and the records say why."""
    engine = Engine(blind_s=30)
    watch = EngineWatch(engine.health, node.fanout.hub, node.stream)
    async with node.dial() as wire:
        assert await wire.shake() == 101
        await wire.message("welcome")
        engine.silence(30)
        await watch.look()
        assert len(node.connections) == 1
        engine.silence(1)
        with structlog.testing.capture_logs() as logs:
            await watch.look()
        assert [(one["connections"], one["setting"]) for one in logs] == [(1, "engine.blind_s")]
        ending = await wire.ending()
        assert (ending.code, ending.reason) == (1012, "unavailable")
        assert (await node.closed())["event"]["reason"] == "node_blind"


async def test_a_node_whose_clock_is_off_warns_once(node: Node) -> None:
    """From 100 ms, and again only after it was right."""
    engine = Engine()
    watch = EngineWatch(engine.health, node.fanout.hub, node.stream)
    with structlog.testing.capture_logs() as logs:
        for seconds in (0.09, 0.11, 0.09, 0.11, 0.0, -0.2):
            engine.differ(seconds)
            await watch.look()
    assert [one["offset_ms"] for one in logs] == [-110, 200]


async def test_an_old_epoch_of_a_stale_channel_begins_with_a_snapshot(node: Node) -> None:
    """A channel that was called stale and comes back in a new epoch is live with that value."""
    engine = Engine()
    watch = EngineWatch(engine.health, node.fanout.hub, node.stream)
    node.publish("prices.A")
    async with node.dial("&channels=prices.A") as wire:
        assert await wire.shake() == 101
        await wire.message("snapshot")
        engine.silence(3)
        await watch.look()
        await wire.message("status")
        value = Publication(channel="prices.A", epoch="e2", seq=1, ts=9, data=json.dumps(7).encode())
        node.fanout.publish(value)
        assert (await wire.message("snapshot"))["data"] == 7
        await until(lambda: not any(one.stale for one in node.fanout.hub.channels()))
