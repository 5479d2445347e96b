"""Callers that are slower than the market, that give up waiting, or whose token function fails."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import Closed, Snapshot, Status, Update, Welcome
from relay.client.event_queue import FRESH_S, MAX_EVENTS, EventQueue
from relay.client.frames import parse_server_frame
from relay.client.subscriptions import DesiredSubscriptions
from tests.support.scripted_servers import TOKEN, send, stay, stream_server, value, welcome
from tests.support.sdk_subscriber import following, says, subscriber, take

pytestmark = pytest.mark.usefixtures("compression")

FLOOD = 5 * MAX_EVENTS


def _value(kind: str, seq: int, **members: Any) -> Snapshot | Update:
    frame = parse_server_frame(json.dumps(value(kind, seq, **members)))
    assert isinstance(frame, Snapshot | Update)
    return frame


def _flood(mode: str, is_sent: asyncio.Event) -> Callable[[ServerConnection], Awaitable[None]]:
    """Return a script that sends many values of one channel at once."""

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        ack = {"channel": "prices.A", "mode": mode, "epoch": "e1", "seq": 1, "state": "live"}
        await send(connection, type="subscribed", channels=[ack])
        await send(connection, **value("snapshot", 1))
        for seq in range(2, FLOOD + 1):
            await send(connection, **value("update", seq))
        is_sent.set()
        await stay(connection)

    return talk


async def test_a_slow_caller_gets_the_newest_price() -> None:
    """What a caller missed of a `latest` channel is left out: the newest value comes after a bounded number."""
    is_sent = asyncio.Event()
    async with stream_server(_flood("latest", is_sent)) as stream, subscriber(stream.url) as prices:
        seqs: list[int] = []
        await take(prices, 2)
        await is_sent.wait()  # the caller's work
        while not seqs or seqs[-1] < FLOOD:
            event = await following(prices)
            if isinstance(event, Snapshot | Update):
                seqs.append(event.seq)
    assert seqs == sorted(seqs)
    assert len(seqs) <= FLOOD // 2


async def test_a_slow_caller_gets_each_message_of_a_stream() -> None:
    """No message of a stream is left out, and `positions` names the last one that the caller got."""
    is_sent = asyncio.Event()
    async with stream_server(_flood("stream", is_sent)) as stream, subscriber(stream.url) as trades:
        await take(trades, 2)
        for seq in range(1, FLOOD + 1):
            event = await following(trades)
            assert isinstance(event, Snapshot | Update)
            assert event.seq == seq
            assert trades.positions["prices.A"].seq == seq


def _queue() -> EventQueue:
    return EventQueue(DesiredSubscriptions(), None)


def test_values_that_waited_are_replaced_by_the_newest() -> None:
    """After half a second the first waiting value has become the newest one, and is a snapshot if one was replaced."""
    queue = _queue()
    queue.value(_value("snapshot", 1), 0.0)
    queue.value(_value("snapshot", 1, channel="prices.B"), 0.0)
    for seq in range(2, 10):
        queue.value(_value("update", seq), 0.1 * seq)
    first, second = queue.next(1.0), queue.next(1.0)
    assert isinstance(first, Snapshot)
    assert (first.channel, first.seq, first.epoch, first.data) == ("prices.A", 9, "e1", {"p": 9})
    assert isinstance(second, Snapshot)
    assert second.channel == "prices.B"
    assert queue.next(1.0) is None


def test_a_fast_caller_gets_every_value() -> None:
    """Values that came within half a second are all handed out."""
    queue = _queue()
    for seq in range(1, 10):
        queue.value(_value("snapshot" if seq == 1 else "update", seq), 0.0)
    seqs = [event.seq for _ in range(9) if isinstance(event := queue.next(FRESH_S), Snapshot | Update)]
    assert seqs == list(range(1, 10))


def test_what_waits_is_bounded() -> None:
    """However many values and states come to a caller that takes none, a bounded number waits."""
    queue = _queue()
    for seq in range(1, 20 * MAX_EVENTS):
        queue.value(_value("snapshot" if seq == 1 else "update", seq), seq / 1000)
        state = "stale" if seq % 2 else "live"
        queue.status(Status(channel="prices.A", state=state), seq / 1000)
    count = 0
    while queue.next(20.0) is not None:
        count += 1
    assert count <= MAX_EVENTS
    assert queue.has_room


async def test_a_wait_that_is_given_up_does_not_end_the_attempt() -> None:
    """A caller that waits a little at a time connects with one token, however slow the issuer is."""
    asked = 0
    go_on = asyncio.Event()

    async def token() -> str:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return TOKEN

    async with stream_server(says()) as stream, subscriber(stream.url, token) as prices:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(prices), 0.001)
        go_on.set()
        assert isinstance(await following(prices), Welcome)
    assert asked == 1
    assert len(stream.handshakes) == 1


async def test_a_second_iteration_is_an_error_at_once() -> None:
    """Two tasks can't share one iteration, and the first one goes on."""
    async with stream_server(says()) as stream, subscriber(stream.url) as prices:
        first = asyncio.ensure_future(anext(prices))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="only one"):
            await anext(prices)
        assert isinstance(await first, Welcome)
    assert len(stream.handshakes) == 1


@pytest.mark.parametrize("error", [ConnectionError("no route"), asyncio.CancelledError()])
async def test_a_failing_token_function_is_called_again(error: BaseException) -> None:
    """An exception of the caller's token function is the reason of a `Closed` event, and another attempt follows."""
    errors = [error]

    async def token() -> str:
        if errors:
            raise errors.pop()
        return TOKEN

    async with stream_server(says()) as stream, subscriber(stream.url, token) as prices:
        closed, again = await take(prices, 2)
    assert isinstance(closed, Closed)
    assert "no route" in closed.reason or "cancelled" in closed.reason
    assert isinstance(again, Welcome)
