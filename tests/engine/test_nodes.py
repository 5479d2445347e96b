"""The table of nodes in the engine, the format of its logs over two releases, and the heads of the audit logs."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from relay.audit.chain import Link
from relay.broker.base import Position
from relay.core.errors import ConfigurationError
from relay.core.publications import parse_draft
from relay.engine import nodes as nodes_module
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.formats import Formats
from relay.engine.heads import AuditPosition, read_heads
from relay.engine.nodes import EngineNodes, NodeState
from relay.engine.options import EngineOptions
from relay.engine.state import EngineState
from tests.support.engine_invariants import Hub
from tests.support.engines import Engines, EngineServer, until

FIRST, NEXT, AFTER_NEXT = (
    Formats(oldest=1, newest=1),
    Formats(oldest=1, newest=2),
    Formats(oldest=2, newest=3),
)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes write every 50 ms."""
    monkeypatch.setattr(nodes_module, "EVERY_S", 0.05)
    monkeypatch.setattr(nodes_module, "_AGREE_WITHIN_S", 1.0)


def position(writer: str, seq: int = 1, *, head: int = 0, keep_s: float = 600) -> AuditPosition:
    """Return how far an audit log is whose hashes are its numbers."""
    return AuditPosition(
        opened=link(writer, seq), head=link(writer, head) if head else None, place="here:/log", keep_s=keep_s
    )


def link(writer: str, seq: int, mark: str = "0") -> Link:
    """Return a record's link."""
    return Link(writer, seq, f"{seq:063}{mark}")


@dataclass
class TestNode:
    """A node with its log of publications and its revocations."""

    __test__ = False
    options: EngineOptions
    nodes: EngineNodes
    broker: EngineBroker
    state: EngineState
    hub: Hub = field(default_factory=Hub)

    async def publish(self, data: int) -> None:
        """Publish a value of a stream channel."""
        draft = parse_draft(f'{{"channel":"stream.a","data":{data}}}'.encode())
        assert isinstance(await self.broker.publish(draft, ts=1), Position)

    @property
    def got(self) -> list[int]:
        """The values that it got."""
        return [int(one.data) for one in self.hub.got]


@contextlib.asynccontextmanager
async def node(
    options: EngineOptions, name: str, formats: Formats = FIRST, *, refs: str = "", **figures: Any
) -> AsyncIterator[TestNode]:
    """Run a node of a release that reads these formats, with this digest of its key of references."""
    options = replace(options, formats=formats)
    state = await EngineState.open(options)
    broker = EngineBroker(
        options, max_channels=9, history_of=lambda _: KeptHistory(messages=1000, seconds=60)
    )

    def use(number: int) -> None:
        state.log_format = broker.log_format = number

    nodes = EngineNodes(
        options=options, on_format=use, refs=refs, figures=lambda: {"node": name, "release": "9", **figures}
    )
    one = TestNode(options, nodes, broker, state)
    try:
        await nodes.open(position(name))
        broker.attach(one.hub, after=(await broker.load()).delivery_position)
        yield one
        await nodes.end()
    finally:
        await nodes.aclose()
        await broker.aclose()
        await state.aclose()


def states(one: TestNode) -> dict[str, str]:
    """Return the states of all nodes, as one of them knows."""
    return {other.id: state.value for other, state, _ in one.nodes.known()}


async def test_nodes_see_each_other_come_go_and_vanish(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their figures. One that ended in order is told from one that stopped to write; a silent engine from both."""
    monkeypatch.setattr(nodes_module, "VANISHED_AFTER_S", 0.5)
    options = engines("redis").options()
    async with node(options, "one") as one:
        async with node(options, "two", connections=7):
            await until(lambda: states(one) == {"one": "live", "two": "live"})
            assert one.nodes.known()[1][0].figures["connections"] == 7
        await until(lambda: states(one)["two"] == "stopped")
        async with node(options, "two") as two:
            await until(lambda: states(one)["two"] == "live")
            assert two.nodes.task is not None
            two.nodes.task.stop()
            await until(lambda: states(one)["two"] == "vanished")
        await until(lambda: states(one)["two"] == "stopped")
        async with node(options, "two", stopping=True):
            await until(lambda: states(one)["two"] == "draining")
        assert one.nodes.counts()["live"] == 1
        assert one.nodes.task is not None
        one.nodes.task.stop()  # as if the engine did not answer
        await until(lambda: states(one)["one"] == "unknown")


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_row_that_nobody_writes_is_removed_after_an_hour(engines: Engines, kind: str) -> None:
    """By any node that writes its own."""
    options = engines(kind).options()
    server = engines(kind)
    key = options.key("c", "nodes")
    now = float(server.run("TIME")[0])
    server.run("HSET", key, "old", f"{now - 3601} 1 1 1 1 0 {{}}", "older", f"{now - 3500} 1 1 1 1 0 {{}}")
    async with node(options, "one") as one:
        await until(lambda: set(states(one)) == {"one", "older"})
        assert states(one)["older"] == "vanished"


async def test_a_process_that_continues_a_log_replaces_the_row(engines: Engines) -> None:
    """And a late word of the process before does not count."""
    options = engines("redis").options()
    before = EngineNodes(options=options, on_format=lambda _: None, figures=lambda: {"node": "before"})
    after = EngineNodes(options=options, on_format=lambda _: None, figures=lambda: {"node": "after"})
    try:
        await before.open(position("w", 1), clock=lambda: 100.0)
        await after.open(position("w", 5), clock=lambda: 200.0)
        await before.end()
        await before.keep_head(link("w", 3))
        await after.keep_head(link("w", 6))
        await after.end()
        assert [(one.figures["node"], state) for one, state, _ in after.known()] == [
            ("after", NodeState.STOPPED)
        ]
        assert [head.link for head in await read_heads(options)] == [link("w", 6)]
        assert not after.cut
    finally:
        await before.aclose()
        await after.aclose()


async def test_a_newer_release_writes_what_the_older_one_reads(engines: Engines) -> None:
    """And its own format when the last old node is gone; back at once if one comes. No message is lost or repeated."""
    options = engines("redis").options()
    values = iter(range(1, 10_000))
    async with contextlib.AsyncExitStack() as stack:
        new = await stack.enter_async_context(node(options, "new", NEXT))
        other = await stack.enter_async_context(node(options, "other", NEXT))
        async with node(options, "old") as old:
            for one in (new, old, other):
                await one.publish(next(values))
                await one.state.revoke(f"by-{one.broker.log_format}", at=1, until=9e9)
            assert {one.broker.log_format for one in (new, old, other)} == {1}
            await until(lambda: old.got == new.got == other.got == [1, 2, 3])
            assert not old.broker.resyncs
        await until(lambda: {new.broker.log_format, new.state.log_format, other.broker.log_format} == {2})
        await new.publish(next(values))
        await new.state.revoke("two", at=1, until=9e9)
        await until(lambda: other.got == [1, 2, 3, 4] and other.state.revoked_at("two"))
        async with node(options, "again") as again:
            assert new.broker.log_format == other.broker.log_format == 1
            await other.publish(next(values))
            await until(lambda: again.got[-1:] == [5])
            assert again.state.pulse.fault == again.broker.shards[0].pulse.fault == ""
        await until(lambda: new.got == other.got == [1, 2, 3, 4, 5])
        assert not new.broker.resyncs + other.broker.resyncs


async def test_releases_without_a_common_format_do_not_start_beside_each_other(engines: Engines) -> None:
    """Neither the older nor the newer one, in one sentence that names the node, its release and the formats."""
    options = engines("redis").options()
    async with node(options, "newest", AFTER_NEXT):
        with pytest.raises(
            ConfigurationError, match=r"node newest \(release 9\) writes the log format 2.*reads 1"
        ):
            async with node(options, "old"):
                pass
    async with node(options, "old"):
        with pytest.raises(ConfigurationError, match=r"node old .* reads the log format 1.*reads 2 to 3"):
            async with node(options, "newest", AFTER_NEXT):
                pass


async def test_a_node_with_another_key_of_references_does_not_start(engines: Engines) -> None:
    """The later one is refused, and no other node because of it. An older release does not say which key it has."""
    options = engines("redis").options()
    async with node(options, "first", refs="a") as first:
        with pytest.raises(
            ConfigurationError, match=r"session\.ref_key: the node first \(release 9\) .* has another one"
        ):
            async with node(options, "other", refs="b"):
                pass
        async with node(options, "second", refs="a"), node(options, "older"):
            await until(lambda: states(first).get("second") == "live")
            assert states(first)["other"] == "stopped"
            assert all("refs" not in one.figures for one, _, _ in first.nodes.known())


async def test_an_entry_that_can_not_be_read_is_named_and_nothing_is_lost(own_engine: EngineServer) -> None:
    """The node is not relied on, says why, and has all values when the entries can be read again."""
    options = own_engine.options()
    async with node(options, "old") as old, node(options, "other") as other:
        await old.publish(1)
        await until(lambda: old.got == [1])
        other.broker.log_format = 7  # a release that does not look whom it writes for
        await other.publish(2)
        await until(lambda: old.broker.shards[0].pulse.fault)
        assert "entries of the format 7, and this release reads 1" in old.broker.shards[0].pulse.fault
        await until(lambda: not old.broker.shards[0].pulse.is_reliable(after_s=1.0))
        other.broker.log_format = 1
        await other.publish(3)
        await until(lambda: old.got == [1, 2, 3])
        await until(lambda: not old.broker.shards[0].pulse.fault)


async def test_a_log_that_was_cut_while_its_process_was_away_is_named(engines: Engines) -> None:
    """What the engine knew stays known beside the head of the log that goes on."""
    options = engines("redis").options()
    for began, opened, head, cut in [(1, 0, 50, 0), (2, 50, 60, 0), (3, 55, 70, 60), (4, 70, 80, 0)]:
        nodes = EngineNodes(options=options, on_format=lambda _: None)
        await nodes.open(position("w", opened), clock=partial(float, began))
        assert nodes.cut == cut
        await nodes.keep_head(link("w", head))
        await nodes.end()
        await nodes.aclose()
    found = {head.link.seq: head.was_missing for head in await read_heads(options)}
    assert found == {80: False, 60: True}
    nodes = EngineNodes(options=options, on_format=lambda _: None)
    other_hash = AuditPosition(opened=link("w", 80, "f"), place="here:/log", keep_s=600)
    await nodes.open(other_hash, clock=lambda: 5.0)
    assert nodes.cut == 80
    await nodes.aclose()
