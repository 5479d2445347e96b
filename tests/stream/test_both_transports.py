"""relay.v1 over both transports: a WebSocket and an event stream get the same frames, and end for the same reasons."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from relay.core.channels import ChannelOptions
from relay.core.liveness import BEATS_PER_HEARTBEAT
from relay.core.messages import Mode
from relay.core.revocations import Kind, Target
from relay.stream.hub_clock import steady_ms
from relay.stream.outgoing import STALLED_CHECKS
from relay.stream.sent import REPORT_EVERY_S
from tests.support.raw_websocket import RawWebSocket, text, until
from tests.support.stream_node import Node, running_node

TRADES = ChannelOptions(mode=Mode.STREAM, history_messages=50, history_ms=300_000)


@dataclass(frozen=True)
class Transport:
    """A node, and one way to connect to it."""

    node: Node
    name: str

    def dial(self, query: str = "", **options: Any) -> AbstractAsyncContextManager[RawWebSocket]:
        """Open a connection. Nothing has been read from it yet."""
        return (
            self.node.dial(query, **options) if self.name == "websocket" else self.node.ask(query, **options)
        )

    async def begin(self, wire: RawWebSocket) -> None:
        """Read the answer to the request and the welcome."""
        assert await wire.shake() == (101 if self.name == "websocket" else 200)
        welcome = await wire.message()
        assert welcome["type"] == "welcome"
        assert set(welcome) == {
            "type",
            "connection",
            "protocol",
            "ts",
            "heartbeat_ms",
            "expires_at",
            "limits",
        }

    async def resume(self, wire: RawWebSocket, since: dict[str, Any]) -> dict[str, Any]:
        """Return the acknowledgement of channels that are resumed. Only a WebSocket has a frame for that."""
        if self.name == "websocket":
            wire.send(text(type="subscribe", id=1, channels=list(since), since=since))
        return await wire.message("subscribed")

    def resuming(self, since: dict[str, Any]) -> str:
        """Return the part of a query string that names channels to be resumed."""
        if self.name == "websocket":
            return ""
        return f"&channels={','.join(since)}&since={quote(json.dumps(since))}"

    @property
    def connection(self) -> Any:
        """The one registered connection."""
        (connection,) = self.node.stream.registry.connections
        return connection


@pytest_asyncio.fixture(params=["websocket", "sse"])
async def prices(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    """A node whose channels have the mode `latest`."""
    async with running_node(tmp_path) as node:
        yield Transport(node, request.param)


@pytest_asyncio.fixture(params=["websocket", "sse"])
async def trades(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    """A node whose channels have the mode `stream`, and a short history."""
    async with running_node(tmp_path, channels=TRADES) as node:
        yield Transport(node, request.param)


async def ended(wire: RawWebSocket, code: int, reason: str) -> list[dict[str, Any]]:
    """Read to the end, which must be this one, and return the frames before it."""
    ending = await wire.ending()
    assert (ending.code, ending.reason) == (code, reason)
    return ending.before


async def test_the_same_frames_in_the_same_order(prices: Transport) -> None:
    """Acknowledgement, snapshot, status, updates and heartbeat come as relay.v1 says."""
    node = prices.node
    node.publish("prices.A", b'{"p":"1,\\n\xc3\xa4"}')
    async with prices.dial("&channels=prices.A,depth.X,prices.B&interval_ms=0") as wire:
        await prices.begin(wire)
        ack = await wire.message()
        common = {"mode": "latest", "interval_ms": 0, "recovered": False}
        assert ack["channels"] == [
            {"channel": "prices.A", "epoch": "e1", "seq": 1, "state": "live"} | common,
            {"channel": "prices.B", "epoch": "", "seq": 0, "state": "stale"} | common,
        ]
        assert [each["channel"] for each in ack["rejected"]] == ["depth.X"]
        snapshot = {"type": "snapshot", "channel": "prices.A", "epoch": "e1", "seq": 1, "ts": 1}
        assert await wire.message() == snapshot | {"data": {"p": "1,\nä"}}
        node.publish("prices.A", b"2")
        node.publish("prices.B", b"3")
        assert await wire.message() == {
            "type": "update",
            "channel": "prices.A",
            "seq": 2,
            "ts": 2,
            "data": 2,
        }
        assert (await wire.message())["type"] == "snapshot"
        node.fanout.hub.mark_stale(now_ms=steady_ms() + 3_600_000)
        states = [await wire.message(), await wire.message()]
        assert {(each["type"], each["channel"], each["state"]) for each in states} == {
            ("status", "prices.A", "stale"),
            ("status", "prices.B", "stale"),
        }
        for number in range(BEATS_PER_HEARTBEAT + 1):
            for _ in node.fanout.hub.beat(now_ms=number):
                pass
        assert (await wire.message("heartbeat"))["ts"] in range(BEATS_PER_HEARTBEAT + 1)


async def test_without_channels(prices: Transport) -> None:
    """A token with patterns only is told so. One with exact channels subscribes to them."""
    async with prices.dial() as wire:
        await prices.begin(wire)
        assert (await wire.message())["code"] == "nothing_subscribed"
    token = prices.node.tickets.token("prices.A", "prices.B.>")
    async with prices.dial(token=token) as wire:
        await prices.begin(wire)
        assert [each["channel"] for each in (await wire.message())["channels"]] == ["prices.A"]


async def test_a_pattern_begins_each_channel_with_a_snapshot(prices: Transport) -> None:
    """Channels that match now, and one that appears later."""
    prices.node.publish("prices.A")
    async with prices.dial("&channels=prices.*") as wire:
        await prices.begin(wire)
        assert (await wire.message())["channels"][0]["matches"] == 1
        prices.node.publish("prices.B")
        found = [await wire.message(), await wire.message()]
        assert [(each["type"], each["channel"]) for each in found] == [
            ("snapshot", "prices.A"),
            ("snapshot", "prices.B"),
        ]


async def test_a_cut_line_resumes_without_loss_or_repeat(trades: Transport) -> None:
    """All messages after the last one that came, in order, while new ones go on; both channels by themselves."""
    node = trades.node
    for _ in range(3):
        node.publish("prices.A")
    async with trades.dial("&channels=prices.A,prices.B") as wire:
        await trades.begin(wire)
        assert (await wire.message("snapshot"))["seq"] == 3
        node.publish("prices.A")
        assert (await wire.message("update"))["seq"] == 4
        wire.reset()
    await node.empty()
    for _ in range(10):
        node.publish("prices.A")
        node.publish("prices.B")
    since = {"prices.A": {"epoch": "e1", "seq": 4}, "prices.B": {"epoch": "e1", "seq": 1}}
    async with trades.dial(trades.resuming(since)) as wire:
        await trades.begin(wire)
        ack = await trades.resume(wire, since)
        assert [each["recovered"] for each in ack["channels"]] == [True, True]
        node.publish("prices.A")
        found: dict[str, list[int]] = {"prices.A": [], "prices.B": []}
        while [found["prices.A"][-1:], found["prices.B"][-1:]] != [[15], [10]]:
            message = await wire.message()
            assert message["type"] == "update"
            found[message["channel"]].append(message["seq"])
        assert found == {"prices.A": list(range(5, 16)), "prices.B": list(range(2, 11))}


@pytest.mark.parametrize("position", [("e1", 1), ("e0", 60)], ids=["too far back", "another epoch"])
async def test_what_is_gone_is_called_a_gap(trades: Transport, position: tuple[str, int]) -> None:
    """If the history does not reach back, nothing is replayed. A snapshot follows the honest acknowledgement."""
    for _ in range(60):
        trades.node.publish("prices.A")
    since = {"prices.A": {"epoch": position[0], "seq": position[1]}}
    async with trades.dial(trades.resuming(since)) as wire:
        await trades.begin(wire)
        (channel,) = (await trades.resume(wire, since))["channels"]
        assert (channel["recovered"], channel["seq"]) == (False, 60)
        assert (await wire.message())["type"] == "snapshot"


def _log_out(transport: Transport) -> None:
    (admitted,) = transport.node.stream.registry.connections[transport.connection]
    assert (
        transport.node.stream.registry.end(Target(kind=Kind.SESSION, name=admitted.claims.session_ref)) == 1
    )


def _expire(transport: Transport) -> None:
    for seconds in (3599, 3700):  # first the warning
        transport.connection.check(time.monotonic() + seconds, ping=False)


@pytest.mark.parametrize(
    ("end", "code", "reason", "before"),
    [
        (_log_out, 4501, "session_revoked", []),
        (_expire, 4001, "token_expired", ["token_expiring"]),
        (lambda one: one.connection.overflow(), 4008, "slow_consumer", []),
    ],
    ids=["log-out", "age", "slow"],
)
async def test_the_relay_says_why_it_ends_a_connection(
    prices: Transport, end: Callable[[Transport], None], code: int, reason: str, before: list[str]
) -> None:
    """Code and reason are the last that a client gets, and the audit log has them too. No price follows."""
    node = prices.node
    async with prices.dial("&channels=prices.A") as wire:
        await prices.begin(wire)
        await wire.message("subscribed")
        end(prices)
        node.publish("prices.A")
        assert [each["type"] for each in await ended(wire, code, reason)] == before
    closed = (await node.closed())["relay"]["connection"]
    assert (closed["close_code"], closed["initiator"]) == (code, "relay")
    await node.empty()


async def test_a_drain_names_the_time_to_come_back(prices: Transport) -> None:
    """`reconnect` has the delay, and the end is 1012. New requests are answered with 503."""
    async with prices.dial("&channels=prices.A") as wire:
        await prices.begin(wire)
        await wire.message("subscribed")
        await prices.node.stream.drain()
        (last,) = await ended(wire, 1012, "restart")
        assert last["type"] == "reconnect"
        assert 500 <= last["delay_ms"] <= 5500
    async with prices.dial() as late:
        assert await late.shake() == 503


async def test_the_oldest_connection_of_a_session_makes_room(prices: Transport) -> None:
    """The limit counts both transports: a newer connection of either replaces the oldest of the other."""
    node = prices.node
    node.stream.registry.update(per_session=1, replace=True)
    other = Transport(node, "sse" if prices.name == "websocket" else "websocket")
    tokens = [node.tickets.token(session="one") for _ in range(2)]
    async with other.dial("&channels=prices.A", token=tokens[0]) as old:
        await other.begin(old)
        await old.message("subscribed")
        async with prices.dial("&channels=prices.A", token=tokens[1]) as new:
            await prices.begin(new)
            assert await ended(old, 4504, "replaced") == []
            await new.message("subscribed")


async def test_a_slow_reader_skips_old_prices(prices: Transport) -> None:
    """While its bytes wait, only the newest value is kept for it. The kernel takes little of it."""
    node = prices.node
    async with prices.dial("&channels=prices.A", receive_buffer=4096) as wire:
        await prices.begin(wire)
        connection = prices.connection
        for number in range(400):
            node.publish("prices.A", b'{"n":%d,"x":"%b"}' % (number, b"x" * 1000))
            await asyncio.sleep(0)  # one write for each
        await until(lambda: connection.pending() > 0)
        got = [await wire.message("snapshot", "update")]
        while got[-1]["data"]["n"] != 399:
            got.append(await wire.message("update"))
        assert len(got) < 200
        numbers = [each["data"]["n"] for each in got]
        assert numbers == sorted(set(numbers))
        wire.reset()
    await node.empty()
    counted = (await node.closed())["relay"]["connection"]
    assert counted["conflated"] >= 200
    assert counted["messages_out"] + counted["conflated"] >= 400


async def test_a_slow_reader_of_a_stream_is_ended(trades: Transport) -> None:
    """It was promised every message: more than a mebibyte that waits ends the connection, with 4008 in the log."""
    node = trades.node
    async with trades.dial("&channels=prices.A", receive_buffer=4096) as wire:
        await trades.begin(wire)
        for _ in range(300):
            node.publish("prices.A", b'"%b"' % (b"x" * 10_000))
            await asyncio.sleep(0)
        await node.empty()  # it is cut off a second later, because it takes nothing
    record = await node.closed()
    assert (record["event"]["reason"], record["relay"]["connection"]["close_code"]) == ("slow_consumer", 4008)


async def test_a_reader_that_takes_nothing_is_cut_off(prices: Transport) -> None:
    """After so many checks without a byte taken, without a last message: reader_stalled."""
    node = prices.node
    async with prices.dial("&channels=prices.A", receive_buffer=4096) as wire:
        await prices.begin(wire)
        connection = prices.connection
        for _ in range(100):
            node.publish("prices.A", b'"%b"' % (b"x" * 10_000))
            await asyncio.sleep(0)
        await until(lambda: connection.pending() > 0)
        for _ in range(STALLED_CHECKS + 1):
            connection.check(time.monotonic(), ping=False)
        await node.empty()
        assert connection.ended.reason == "reader_stalled"


async def test_nothing_is_left_of_a_client_that_went(prices: Transport) -> None:
    """Reset or closed: the registry, the hub, the counts and the tasks are empty, and the audit log has the end."""
    node = prices.node
    for leave in (RawWebSocket.reset, lambda wire: wire.writer.write_eof()):
        async with prices.dial("&channels=prices.A,prices.>") as wire:
            await prices.begin(wire)
            await wire.message("subscribed")
            leave(wire)
            await node.empty()
        await node.closed()
    assert not node.stream._event_streams


def sent_rows(record: dict[str, Any]) -> dict[str, tuple[int, int, int, bool]]:
    """Return what a record says was sent: first, last, count and whether it is complete, by channel."""
    return {
        row["channel"]: (row["first"], row["last"], row["count"], row["complete"])
        for row in record["relay"].get("sent", ())
    }


async def test_a_connections_last_record_says_what_it_was_sent(prices: Transport) -> None:
    """By channel: the first and last number, and whether all between them were sent. What has no row is summed up."""
    node = prices.node
    node.stream.sent.each = 2
    node.publish("prices.A")
    node.publish("prices.A")
    async with prices.dial("&channels=prices.A,prices.B,prices.C&interval_ms=0") as wire:
        await prices.begin(wire)
        await wire.message("snapshot")
        for channel in ("prices.A", "prices.B", "prices.A", "prices.C"):
            node.publish(channel)
            await wire.message("update", "snapshot")
    record = await node.closed()
    assert sent_rows(record) == {"prices.A": (2, 4, 3, True), "prices.B": (1, 1, 1, True)}
    assert (record["relay"]["others"], record["relay"]["reports"]) == ({"count": 1}, 0)


async def test_what_was_left_out_is_said_to_be_incomplete(prices: Transport) -> None:
    """An interval leaves values out: the span has more numbers than messages."""
    node = prices.node
    node.publish("prices.A")
    async with prices.dial("&channels=prices.A&interval_ms=50") as wire:
        await prices.begin(wire)
        await wire.message("snapshot")
        for _ in range(3):
            node.publish("prices.A")
        assert (await wire.message("update"))["seq"] == 4
    assert sent_rows(await node.closed()) == {"prices.A": (1, 4, 2, False)}


async def test_a_long_connection_is_reported_meanwhile(trades: Transport) -> None:
    """Each report begins where the one before ended, and what comes after the last is in the record of the end."""
    node = trades.node
    channels = ["prices.A", "prices.B"]
    for channel in channels:
        node.publish(channel)
    async with trades.dial("&channels=prices.A,prices.B") as wire:
        await trades.begin(wire)
        for _ in channels:
            await wire.message("snapshot")
        await node.stream.sent.report_due(time.monotonic() + REPORT_EVERY_S)
        reports: list[dict[str, Any]] = []

        def are_reported() -> bool:
            reports[:] = [one for one in node.audited() if one["event"]["action"] == "connection.channels"]
            return len(reports) == 1

        await until(are_reported)
        assert sent_rows(reports[0]) == dict.fromkeys(channels, (1, 1, 1, True))
        node.publish("prices.A")
        await wire.message("update")
    record = await node.closed()
    assert sent_rows(record) == {"prices.A": (2, 2, 1, True)}
    assert record["relay"]["reports"] == 1
    assert record["relay"]["connection"]["id"] == reports[0]["relay"]["connection"]["id"]
