"""What a subscription asks for and hands out, against a small real stream that follows a script."""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import (
    Backoff,
    Position,
    Problem,
    RefreshFailed,
    Snapshot,
    Subscribed,
    Subscriber,
    Unsubscribed,
    Update,
    Welcome,
)
from relay.core.errors import ConfigurationError, MalformedError
from tests.support.client_cases import BROKEN_FRAMES, COMPRESSION_ASKED, REFUSED_REQUESTS, RefusedRequest
from tests.support.scripted_servers import (
    TOKEN,
    read,
    send,
    stay,
    stream_server,
    value,
    welcome,
)
from tests.support.sdk_subscriber import following, fresh, says, subscriber, take

pytestmark = pytest.mark.usefixtures("compression")


@pytest.mark.plain_only("It is about what a subscriber asks for by itself.")
@pytest.mark.parametrize("interval_ms", [0, 100])
async def test_a_subscriber_yields_welcome_ack_snapshot_and_updates(interval_ms: int) -> None:
    """Token in the subprotocol, channels in the URL; then welcome, ack, snapshot and updates as events.

    With an interval it asks for compressed batches.
    """
    ack = {
        "type": "subscribed",
        "channels": [{"channel": "prices.A", "epoch": "e1", "seq": 1, "state": "live"}],
    }
    script = says(ack, value("snapshot", 1), value("update", 2))
    origin = "https://app.example.com"
    async with (
        stream_server(script) as stream,
        subscriber(stream.url, origin=origin, compress=None) as prices,
    ):
        await prices.subscribe(["prices.A", "prices.=F^/:~+-"], interval_ms=interval_ms)
        first, second, third, fourth = await take(prices, 4)
    assert isinstance(first, Welcome)
    assert isinstance(second, Subscribed)
    assert isinstance(third, Snapshot)
    assert isinstance(fourth, Update)
    assert (third.data, fourth.seq) == ({"p": 1}, 2)
    [request] = stream.handshakes
    assert request.headers["Sec-WebSocket-Protocol"] == f"relay.v1, bearer.{TOKEN}"
    assert request.headers["Origin"] == "https://app.example.com"
    asked = {"compress": ["1"]} if interval_ms else {}
    assert ("Sec-WebSocket-Extensions" in request.headers) == bool(asked)
    assert parse_qs(urlsplit(request.path).query) == {
        "channels": ["prices.A,prices.=F^/:~+-"],
        "interval_ms": [str(interval_ms)],
        **asked,
    }


@pytest.mark.plain_only("It is about what a subscriber asks for by itself, or is told to ask for.")
@pytest.mark.parametrize(("compress", "intervals", "asks"), COMPRESSION_ASKED)
@pytest.mark.parametrize("is_resumed", [False, True])
async def test_compression_is_asked_for_where_an_interval_collects_values(
    compress: bool | None, intervals: list[int], asks: bool, is_resumed: bool
) -> None:
    """Whichever channel has one, and also if the URL names none, because a channel is resumed."""
    names = {f"prices.{interval}": interval for interval in intervals}
    since = {name: Position(channel=name, epoch="e1", seq=1) for name in names} if is_resumed else {}
    async with (
        stream_server(says()) as stream,
        subscriber(stream.url, compress=compress, since=since) as prices,
    ):
        for name, interval_ms in names.items():
            await prices.subscribe(name, interval_ms=interval_ms)
        await following(prices)
    [request] = stream.handshakes
    query = parse_qs(urlsplit(request.path).query)
    assert query.get("compress", []) == ["1"] * asks
    assert ("channels" in query) == (bool(names) and not is_resumed)
    assert stream.extensions == [asks]


async def test_repeats_and_heartbeats_are_not_handed_out() -> None:
    """Duplicates by epoch and seq, heartbeats and frames of unknown types stay inside."""
    frames = [
        value("snapshot", 5),
        value("update", 5),
        {"type": "heartbeat", "ts": 1},
        {"type": "weather", "degrees": 21},
        value("update", 6),
        value("snapshot", 1, epoch="e2"),
        value("update", 2),
    ]
    async with stream_server(says(*frames)) as stream, subscriber(stream.url) as prices:
        events = (await take(prices, 5))[1:]
    assert [event.seq for event in events if isinstance(event, Snapshot | Update)] == [5, 6, 1, 2]


async def test_subscribing_later_sends_frames() -> None:
    """Once connected, new subscriptions are sent as frames, and are part of the next connection too."""
    frames: list[dict[str, Any]] = []

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        frames.extend([await read(connection) for _ in range(3)])
        await send(connection, type="unsubscribed", id=frames[-1]["id"], channels=["prices.A"])
        await connection.close(1012)

    async with stream_server(talk, says()) as stream, subscriber(stream.url) as prices:
        await prices.subscribe(["prices.A"])
        await following(prices)
        await prices.subscribe(["prices.B"], interval_ms=250)
        await prices.subscribe("prices.C")
        await prices.unsubscribe(["prices.A", "never.wanted"])
        gone, _, again = await take(prices, 3)
    assert isinstance(gone, Unsubscribed)
    assert isinstance(again, Welcome)
    assert frames == [
        {"id": 1, "type": "subscribe", "channels": ["prices.B"], "interval_ms": 250},
        {"id": 2, "type": "subscribe", "channels": ["prices.C"], "interval_ms": 0},
        {"id": 3, "type": "unsubscribe", "channels": ["prices.A"]},
    ]
    assert "prices.A" not in stream.handshakes[1].path
    assert "prices.B" in stream.handshakes[1].path


async def test_many_channels_go_in_url_and_frames() -> None:
    """What the URL has no room for follows in frames, in other intervals too, and nothing is left out."""
    names = [f"prices.SYMBOL-{number:04d}" for number in range(1000)]
    got: list[str] = []
    done = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        while len(got) < 1001 - len(first()):
            frame = await read(connection)
            assert len(json.dumps(frame)) < 16_384
            got.extend(frame["channels"])
        done.set()
        await send(connection, **value("update", 1))
        await stay(connection)

    def first() -> list[str]:
        return parse_qs(urlsplit(stream.handshakes[0].path).query)["channels"][0].split(",")

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        await prices.subscribe(names)
        await prices.subscribe(["depth.A"], interval_ms=1000)
        await take(prices, 2)
    assert done.is_set()
    assert sorted([*first(), *got]) == sorted([*names, "depth.A"])


async def test_bad_names_and_addresses_are_refused_at_once() -> None:
    """Mistakes of the caller are one sentence, before anything is sent."""
    async with subscriber("ws://127.0.0.1:9/ws/prices") as prices:
        with pytest.raises(MalformedError, match="not a channel"):
            await prices.subscribe(["no channel"])
        with pytest.raises(ConfigurationError, match="interval_ms"):
            await prices.subscribe(["prices.A"], interval_ms=3)
    with pytest.raises(ConfigurationError, match="not an address"):
        Subscriber("http://127.0.0.1:9/ws/prices", fresh)


async def test_a_broken_frame_of_a_batch_is_told_and_the_others_are_read() -> None:
    """As if each had come for itself."""
    script = says(7, value("update", 1))  # type: ignore[arg-type]  # no frame
    async with stream_server(script) as stream, subscriber(stream.url) as prices:
        _, told, update = await take(prices, 3)
    assert isinstance(told, Problem)
    assert told.code == "malformed_frame"
    assert isinstance(update, Update)


@pytest.mark.parametrize("token", ["", "abc", "a.b", "a.b.c.d", "a.b.c\r\nX: y", "a.b.ü"])
async def test_bad_tokens_are_refused_unseen(token: str) -> None:
    """What can't be a token never becomes a header, and is not repeated."""
    async with subscriber("ws://127.0.0.1:9/ws/prices", token) as prices:
        with pytest.raises(ConfigurationError, match="not a scoped token"):
            await following(prices)


async def test_malformed_frames_are_told_and_survived() -> None:
    """A frame that makes no sense is an event, and the connection goes on."""

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        for text in (*BROKEN_FRAMES, b"\x00\xff"):
            await connection.send(text)
        await send(connection, **value("update", 1))
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        _, *told, update = await take(prices, len(BROKEN_FRAMES) + 3)
    assert [one.code for one in told if isinstance(one, Problem)] == ["malformed_frame"] * len(told)
    assert isinstance(update, Update)


@pytest.mark.parametrize("refusal", REFUSED_REQUESTS, ids=lambda refusal: refusal.code)
async def test_a_refused_request_is_sent_again_in_its_place(refusal: RefusedRequest) -> None:
    """A refusal without an id is about the oldest open frame; the others and a refresh are not sent twice."""
    frames: list[tuple[str, list[str] | None]] = []

    async def next_frame(connection: ServerConnection) -> int:
        frame = await read(connection)
        frames.append((frame["type"], frame.get("channels")))
        return int(frame["id"])

    async def acknowledge(connection: ServerConnection, kind: str, id: int) -> None:
        await send(connection, type=kind, id=id, channels=[], rejected=[])

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        first, second, third = [await next_frame(connection) for _ in range(3)]
        await acknowledge(connection, "subscribed", first)
        await send(connection, **refusal.frame(second, 0))
        await acknowledge(connection, "subscribed", third)
        await acknowledge(connection, "subscribed", await next_frame(connection))
        await send(connection, **value("update", 1))
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        assert isinstance(await following(prices), Welcome)
        for channel in ("prices.A", "prices.B", "prices.C"):
            await prices.subscribe(channel)
        events = await take(prices, 4)
    assert [type(event) for event in events] == [Subscribed, Subscribed, Subscribed, Update]
    assert frames == [("subscribe", [f"prices.{name}"]) for name in "ABCB"]


async def test_a_rate_limited_refresh_is_tried_again() -> None:
    """The refusal without an id is about the token that was sent, and no subscription is sent again for it."""

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await send(connection, type="token_expiring", expires_in_ms=2)
        assert (await read(connection))["type"] == "refresh"
        await send(connection, **REFUSED_REQUESTS[0].frame(0, 0))
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        *_, failed = await take(prices, 3)
    assert isinstance(failed, RefreshFailed)
    assert failed.code == "rate_limited"


async def test_closing_ends_the_iteration() -> None:
    """`aclose` from another task ends the iteration, connected or waiting, and closes with 1000."""
    codes: list[int | None] = []

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with stream_server(talk) as stream:
        prices = subscriber(stream.url)
        await following(prices)
        waiting = asyncio.ensure_future(anext(prices, None))
        await asyncio.wait([waiting], timeout=0)
        await prices.aclose()
        assert await waiting is None
        await prices.aclose()
    assert codes == [1000]
    lost = Subscriber("ws://127.0.0.1:9/ws/prices", fresh, backoff=Backoff(first_s=1e9, cap_s=1e9))
    await following(lost)
    waiting = asyncio.ensure_future(anext(lost, None))
    await asyncio.wait([waiting], timeout=0)
    await lost.aclose()
    assert await waiting is None


async def test_closing_does_not_wait_behind_old_prices() -> None:
    """A queue full of unread frames does not delay the close: the relay's close frame comes after them."""
    codes: list[int | None] = []

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        for seq in range(1, 2000):
            await send(connection, **value("update", seq))
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        await take(prices, 2)
    assert codes == [1000]


async def test_a_cancelled_wait_loses_nothing() -> None:
    """A caller that stops waiting for an event and asks again later gets all events."""
    go_on = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await go_on.wait()
        await send(connection, **value("update", 1))
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        await following(prices)
        waiting = asyncio.ensure_future(anext(prices))
        await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        await asyncio.wait([waiting])
        go_on.set()
        event = await following(prices)
    assert isinstance(event, Update)


async def test_closing_during_a_handshake_leaves_no_connection_behind() -> None:
    """`aclose` from another task while a token is being fetched: nothing is opened any more."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        asked.set()
        await go_on.wait()
        return TOKEN

    async with stream_server(stay) as stream:
        prices = subscriber(stream.url, token)
        waiting = asyncio.ensure_future(anext(prices, None))
        await asked.wait()
        await prices.aclose()
        go_on.set()
        assert await waiting is None
        assert stream.handshakes == []
