"""The hub on the event loop, with real connections: one that fails or leaves does not affect others."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import ClassVar

import pytest
from websockets.frames import Opcode

from relay.broker.base import Loaded, Position
from relay.broker.memory import MemoryBroker
from relay.core.channels import ChannelOptions
from relay.core.closes import close_for
from relay.core.errors import Reason, UnavailableError
from relay.core.messages import Since, Subscribe
from relay.core.protocol import HistoryRequest
from relay.core.publications import Publication, parse_draft
from relay.core.revocations import Kind, Target
from relay.stream.fanout import SLICE_S, WRITES_PER_SLICE, Fanout, encode
from relay.stream.hub_clock import steady_ms
from tests.support.hub import subscribe_requests
from tests.support.raw_websocket import masked, until
from tests.support.stream_node import Node


class Socket:
    """A sink that counts, or that fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self.fails:
            raise RuntimeError("this connection is broken")
        self.writes.append(data)

    def pending(self) -> int:
        return 0

    def overflow(self) -> None:
        raise AssertionError("latest channels have no queue")


def test_a_frame_is_whole_and_unmasked() -> None:
    """Text, final, in the shortest length form: the same bytes for everybody."""
    assert encode(b"x" * 125) == b"\x81\x7d" + b"x" * 125
    assert encode(b"x" * 126) == b"\x81\x7e\x00\x7e" + b"x" * 126
    assert encode(b"x" * 65_536) == b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + b"x" * 65_536


async def test_a_write_that_fails_stops_nobody_else() -> None:
    """The loop logs it, and every other subscriber gets its prices, now and later."""

    def all_have(count: int) -> bool:
        return all(len(sink.writes) == count or sink.fails for sink in sinks)

    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    fanout = Fanout(lambda _name: ChannelOptions())
    sinks = [Socket() for _ in range(3)] + [Socket(fails=True)] + [Socket() for _ in range(3)]
    for sink in sinks:
        fanout.hub.subscribe(fanout.hub.join(sink, encode), subscribe_requests(["a"]))
    for seq in (1, 2):
        fanout.hub.publish(Publication(channel="a", epoch="e", seq=seq, ts=1, data=b"1"))
        await until(partial(all_have, seq))
    assert [str(error) for error in errors] == ["this connection is broken"] * 2


async def test_a_long_flush_lets_others_in() -> None:
    """With more subscribers than a slice holds, the loop gets its turn before the flush is over."""
    fanout = Fanout(lambda _name: ChannelOptions(), clock=lambda: 0.0)  # a turn that comes late writes more
    sinks = [Socket() for _ in range(2 * WRITES_PER_SLICE + 1)]
    for sink in sinks:
        fanout.hub.subscribe(fanout.hub.join(sink, encode), subscribe_requests(["a"]))
    fanout.hub.publish(Publication(channel="a", epoch="e", seq=1, ts=1, data=b"1"))
    written: list[int] = []
    while not written or written[-1] < len(sinks):
        await asyncio.sleep(0)
        written.append(sum(len(sink.writes) for sink in sinks))
    assert [count for count in written if count] == [WRITES_PER_SLICE, 2 * WRITES_PER_SLICE, len(sinks)]


@pytest.mark.parametrize(
    "frame",
    [masked(Opcode.TEXT, b"\xff"), b"\x81\x00", masked(Opcode.CLOSE, b"\x03\xe8")],
    ids=["no UTF-8", "unmasked", "close"],
)
async def test_a_closing_connection_is_out_of_the_hub_at_once(node: Node, frame: bytes) -> None:
    """It leaves before the close frame is written: later frames would follow the close frame, or raise."""
    async with node.dial("&channels=prices.A") as wire:
        assert await wire.shake() == 101
        await wire.message("subscribed")
        (connection,) = node.connections
        wire.send(frame)
        while node.fanout.hub._subscribers:
            node.publish("prices.A")
            list(node.fanout.hub.beat(now_ms=0))
            await asyncio.sleep(0)
        ending = await wire.ending()
        assert ending.code is not None
        await node.empty()
        assert connection.client is None


async def test_a_connection_that_leaves_while_its_token_is_looked_up(node: Node) -> None:
    """It never enters the hub, however far it got."""
    for _ in range(10):
        async with node.dial("&channels=prices.A", behind=masked(Opcode.CLOSE, b"\x03\xe8")) as wire:
            await wire.writer.drain()
        async with node.dial("&channels=prices.A") as wire:
            await wire.writer.drain()
            wire.reset()
        node.publish("prices.A")
    await node.empty()


async def test_ending_twice_is_fine(node: Node) -> None:
    """The first reason stands."""
    async with node.dial("&channels=prices.A") as wire:
        assert await wire.shake() == 101
        await wire.message("subscribed")
        (connection,) = node.connections
        connection.end(close_for(Reason.SESSION_REVOKED))
        connection.end(close_for(Reason.CONNECTION_EXPIRED))
        connection.drop(close_for(Reason.NO_PONG))
        assert connection.ended == close_for(Reason.SESSION_REVOKED)
        await node.empty()


async def test_ending_a_session_closes_its_connections_only(node: Node) -> None:
    """4501 to each of them; the registry then knows nothing of the session."""
    tokens = [node.tickets.token(session=session) for session in ("one", "one", "two")]
    async with (
        node.dial(token=tokens[0]) as a,
        node.dial(token=tokens[1]) as b,
        node.dial(token=tokens[2]) as c,
    ):
        for wire in (a, b, c):
            assert await wire.shake() == 101
            await wire.message("error")
        assert node.stream.registry.end(Target(kind=Kind.SESSION, name="one")) == 2
        assert [(await wire.ending()).code for wire in (a, b)] == [4501, 4501]
        assert node.stream.registry.end(Target(kind=Kind.SESSION, name="unknown")) == 0
        assert len(node.fanout.hub._subscribers) == 1


async def test_nothing_is_left_of_any_connection(node: Node) -> None:
    """Neither in the registry nor in the hub, the counts of addresses, the tasks, the loop."""
    tasks = len(asyncio.all_tasks())
    for number in range(60):
        async with node.dial("&channels=prices.A,prices.*", token="" if number % 6 else "broken") as wire:
            if number % 6:
                assert await wire.shake() == 101
                node.publish("prices.A")
            if number % 3 == 1:
                wire.send(masked(Opcode.CLOSE, b"\x03\xe8"))
            elif number % 3 == 2:
                wire.reset()
    await node.empty()
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    channels = node.fanout.hub._subscriptions._channels
    assert list(channels) == ["prices.A"]
    assert channels["prices.A"].groups == {}


async def test_prices_get_half_of_a_busy_loop() -> None:
    """When others had the loop for as long as several slices take, so many are written at once: a tick waits for one
    such turn or two, and not for four."""
    clock = count(1, 3 * SLICE_S)  # so much later at each look: when it is woken, and when its turn comes
    fanout = Fanout(lambda _name: ChannelOptions(), clock=lambda: next(clock))
    sinks = [Socket() for _ in range(8 * WRITES_PER_SLICE)]
    for sink in sinks:
        fanout.hub.subscribe(fanout.hub.join(sink, encode), subscribe_requests(["a"]))
    fanout.hub.publish(Publication(channel="a", epoch="e", seq=1, ts=1, data=b"1"))
    written: list[int] = []
    while not written or written[-1] < len(sinks):
        await asyncio.sleep(0)
        written.append(sum(len(sink.writes) for sink in sinks))
    assert [total for total in written if total] == [3 * WRITES_PER_SLICE, 6 * WRITES_PER_SLICE, len(sinks)]


async def test_flushes_are_timed_from_what_came_first() -> None:
    """A flush over two turns is one duration. What came during it is measured from its beginning."""
    now = 10.0
    fanout = Fanout(lambda _name: ChannelOptions(), clock=lambda: now)
    for _ in range(2 * WRITES_PER_SLICE):
        fanout.hub.subscribe(fanout.hub.join(Socket(), encode), subscribe_requests(["a"]))

    async def publish(seq: int) -> None:
        """Publish; the loop's next turn writes to half of the sinks, the one after to the others."""
        fanout.hub.publish(Publication(channel="a", epoch="e", seq=seq, ts=1, data=b"1"))
        await asyncio.sleep(0)

    def times() -> tuple[float, int, int]:
        return fanout.flushes.total_s, sum(fanout.flushes.counts), sum(fanout.turns.counts)

    await publish(1)
    assert times() == (0.0, 0, 1)
    now = 11.0
    await publish(2)  # joins the next flush, and may be as old as the first: it woke nobody
    assert times() == (1.0, 1, 2)
    now = 13.0
    await asyncio.sleep(0)  # so late that one turn writes all
    assert times() == (1.0 + 3.0, 2, 3)
    await publish(3)
    now = 13.5
    await asyncio.sleep(0)
    assert times() == (4.0 + 0.5, 3, 5)


async def test_a_flush_rests_if_waiting_spares_writes() -> None:
    """The rest takes twice as long as the spared writes. If each write had one value, the next flush is due at once,
    and so it is after a flush that took long."""
    now, write_s = 10.0, 0.001

    class Slow(Socket):
        def write(self, data: bytes) -> None:
            nonlocal now
            now += write_s
            super().write(data)

    class Loop:
        due: ClassVar[list[tuple[float, Callable[[], None]]]] = []

        def call_soon(self, callback: Callable[[], None]) -> None:
            self.due.append((0.0, callback))

        def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
            self.due.append((round(delay_s, 6), callback))

    def waits() -> float:
        """Let the scheduled turn run when it is due, and return how long that took."""
        nonlocal now
        ((delay_s, callback),) = Loop.due
        Loop.due.clear()
        now += delay_s
        callback()
        return delay_s

    fanout = Fanout(lambda _name: ChannelOptions(), clock=lambda: now)
    fanout._loop = Loop()  # type: ignore[assignment]  # it has what is called
    sinks = [Slow() for _ in range(4)]
    for sink in sinks:
        fanout.hub.subscribe(fanout.hub.join(sink, encode), subscribe_requests(["a", "b"]))
    seqs = count(1)

    def publish(channels: str) -> float:
        for channel in channels:
            fanout.hub.publish(Publication(channel=channel, epoch="e", seq=next(seqs), ts=1, data=b"1"))
        return waits()

    assert publish("ab") == 0.0  # nothing was known
    assert publish("a") == 0.004  # half of 4 ms, twice: two values shared each of 4 writes
    assert publish("a") == 0.0
    assert publish("ab" * 50) == 0.0
    assert publish("a") == round(2 * 0.004 * 0.99, 6)
    assert [len(sink.writes) for sink in sinks] == [5] * 4
    assert publish("ab") == 0.0
    now += 0.0035  # most of the rest is over, and a timer would take longer
    assert publish("a") == 0.0
    write_s = 0.004
    assert publish("ab") == 0.0
    assert publish("ab") == 0.014  # 30 ms after the flush began, which took 16 ms
    write_s = 0.0075
    assert publish("ab") == 0.014
    assert publish("ab") == 0.0


class Archive(MemoryBroker):
    """A broker that keeps every publication, like one with a store, and that can be unreachable."""

    def __init__(self) -> None:
        super().__init__(max_channels=9)
        self.kept: list[Publication] = []
        self.is_down = False
        self.questions = 0

    async def load(self) -> Loaded:
        """See `Broker.load`; remembers what it has as its history."""
        loaded = await super().load()
        self.kept += loaded.values
        return loaded

    async def history(self, channel: str, *, after: Position) -> list[Publication] | None:
        """See `Broker.history`."""
        self.questions += 1
        if self.is_down:
            raise UnavailableError(Reason.STATE_UNAVAILABLE)
        found = [one for one in self.kept if one.channel == channel and one.seq > after.seq]
        return found or None


async def test_a_node_that_starts_has_the_brokers_last_values() -> None:
    """The hub gets them before anything else, and then what is published."""
    broker, fanout = Archive(), Fanout(lambda _name: ChannelOptions())
    for channel in ("a", "a", "b"):
        await broker.publish(parse_draft(b'{"channel":"%b","data":1}' % channel.encode()), ts=1)
    await fanout.connect(broker)
    assert {one.name: one.last and one.last.seq for one in fanout.hub.channels()} == {"a": 2, "b": 1}
    await broker.publish(parse_draft(b'{"channel":"a","data":1}'), ts=1)
    assert {one.name: one.last and one.last.seq for one in fanout.hub.channels()} == {"a": 3, "b": 1}


async def test_a_node_that_starts_knows_how_old_the_last_values_are() -> None:
    """An old one is stale at once, and its age goes on. One that a clock ahead of this one dated is new."""
    broker, fanout = Archive(), Fanout(lambda _name: ChannelOptions(silence_ms=10_000))
    now_ms = int(time.time() * 1000)
    for channel, age_ms in (("new", 0), ("old", 60_000), ("ahead", -60_000)):
        await broker.publish(parse_draft(b'{"channel":"%b","data":1}' % channel.encode()), ts=now_ms - age_ms)
    before_ms = steady_ms()
    await fanout.connect(broker)
    channels = {one.name: one for one in fanout.hub.channels()}
    assert {name: one.stale for name, one in channels.items()} == {"new": False, "old": True, "ahead": False}
    assert channels["old"].valued_ms <= steady_ms() - 60_000
    assert channels["ahead"].valued_ms >= before_ms
    await broker.publish(parse_draft(b'{"channel":"old","data":2}'), ts=now_ms)
    assert not channels["old"].stale


@pytest.mark.parametrize(("is_down", "found", "questions"), [(False, {"a": [1]}, 2), (True, {}, 1)])
async def test_histories_are_the_brokers_as_far_as_it_has_them(
    is_down: bool, found: dict[str, list[int]], questions: int
) -> None:
    """A channel that it does not have begins with a snapshot, and so do all when it can't be reached."""
    broker, fanout = Archive(), Fanout(lambda _name: ChannelOptions())
    await broker.publish(parse_draft(b'{"channel":"a","data":1}'), ts=1)
    await fanout.connect(broker)
    broker.is_down = is_down
    since = dict.fromkeys(("a", "b"), Since(epoch=broker.epoch, seq=0))
    request = HistoryRequest(Subscribe(channels=["a", "b"]), since)
    histories = await fanout.load_histories(request)
    assert {name: [one.seq for one in history] for name, history in histories.items()} == found
    assert broker.questions == questions


async def test_a_node_without_a_broker_has_no_other_history() -> None:
    """What its hub does not keep is gone."""
    fanout = Fanout(lambda _name: ChannelOptions())
    request = HistoryRequest(Subscribe(channels=["a"]), {"a": Since(epoch="e", seq=0)})
    assert await fanout.load_histories(request) == {}
