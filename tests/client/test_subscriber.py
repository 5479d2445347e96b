"""A subscription over its connections, against a small real stream that follows a script."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import (
    Backoff,
    Closed,
    Event,
    HandshakeError,
    Problem,
    ScopedToken,
    Snapshot,
    StreamClosedError,
    Subscribed,
    Subscriber,
    TokenError,
    Unsubscribed,
    Update,
    Welcome,
)
from relay.core.errors import ConfigurationError, MalformedError
from tests.client.servers import (
    TOKEN,
    answer,
    http_server,
    read,
    refusal,
    send,
    stay,
    stream_server,
    value,
    welcome,
)


async def following(events: Subscriber) -> Event:
    """Return the next event; one that never comes ends the test."""
    async with asyncio.timeout(20):
        return await anext(events)


async def fresh() -> str:
    """Return a token for one attempt."""
    return TOKEN


def subscriber(url: str, token: Any = fresh, **options: Any) -> Subscriber:
    """Return a subscriber that loses no time between its attempts."""
    return Subscriber(url, token, backoff=Backoff(first_s=0, cap_s=0), **options)


def says(*frames: dict[str, Any], then: Callable[[ServerConnection], Awaitable[Any]] = stay) -> Any:
    """Return a script that welcomes, sends `frames` and then does one more thing."""

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        for frame in frames:
            await send(connection, **frame)
        await then(connection)

    return talk


def closes(code: int, reason: str = "") -> Callable[[ServerConnection], Awaitable[None]]:
    """Return the last step of a script: a close frame."""

    async def close(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    return close


async def take(events: Subscriber, count: int) -> list[Event]:
    """Return the next events."""
    return [await following(events) for _ in range(count)]


async def test_prices_arrive() -> None:
    """Token in the subprotocol, channels in the URL; then welcome, ack, snapshot and updates as events."""
    ack = {
        "type": "subscribed",
        "channels": [{"channel": "prices.A", "epoch": "e1", "seq": 1, "state": "live"}],
    }
    script = says(ack, value("snapshot", 1), value("update", 2))
    origin = "https://app.example.com"
    async with stream_server(script) as stream, subscriber(stream.url, origin=origin) as prices:
        await prices.subscribe(["prices.A", "prices.=F^/:~+-"], interval_ms=100)
        first, second, third, fourth = await take(prices, 4)
    assert isinstance(first, Welcome)
    assert isinstance(second, Subscribed)
    assert isinstance(third, Snapshot)
    assert isinstance(fourth, Update)
    assert (third.data, fourth.seq) == ({"p": 1}, 2)
    [request] = stream.handshakes
    assert request.headers["Sec-WebSocket-Protocol"] == f"relay.v1, bearer.{TOKEN}"
    assert request.headers["Origin"] == "https://app.example.com"
    assert "Sec-WebSocket-Extensions" not in request.headers
    assert parse_qs(urlsplit(request.path).query) == {
        "channels": ["prices.A,prices.=F^/:~+-"],
        "interval_ms": ["100"],
    }


async def test_repeats_and_heartbeats_are_not_handed_out() -> None:
    """Duplicates by epoch and seq, heartbeats and frames of unknown types stay inside."""
    frames = [
        value("snapshot", 5),
        value("update", 5),
        {"type": "heartbeat", "ts": 1},
        {"type": "token_expiring", "expires_in_ms": 1},
        value("update", 6),
        value("snapshot", 1, epoch="e2"),
        value("update", 2),
    ]
    async with stream_server(says(*frames)) as stream, subscriber(stream.url) as prices:
        events = (await take(prices, 5))[1:]
    assert [event.seq for event in events if isinstance(event, Snapshot | Update)] == [5, 6, 1, 2]


async def test_it_reconnects_and_asks_again() -> None:
    """After a restart a new token opens a new connection, with the same channels and without repeats."""
    tokens = iter(["aa.aa.aa", "bb.bb.bb"])

    async def token() -> str:
        return next(tokens)

    script = (
        says(value("snapshot", 1), value("update", 2), then=closes(1012, "restart")),
        says(value("snapshot", 2), value("update", 3)),
    )
    async with stream_server(*script) as stream, subscriber(stream.url, token) as prices:
        await prices.subscribe("prices.A")
        events = await take(prices, 6)
    assert [type(event).__name__ for event in events] == [
        "Welcome",
        "Snapshot",
        "Update",
        "Closed",
        "Welcome",
        "Update",
    ]
    assert isinstance(events[3], Closed)
    assert (events[3].code, events[3].reason) == (1012, "restart")
    offers = [request.headers["Sec-WebSocket-Protocol"] for request in stream.handshakes]
    assert offers == ["relay.v1, bearer.aa.aa.aa", "relay.v1, bearer.bb.bb.bb"]
    assert stream.handshakes[0].path == stream.handshakes[1].path


async def test_the_servers_delay_is_kept() -> None:
    """A `reconnect` frame before 1012 says how long to wait."""
    script = says({"type": "reconnect", "delay_ms": 60_000}, then=closes(1012))
    async with stream_server(script) as stream, subscriber(stream.url) as prices:
        events = await take(prices, 2)
    assert isinstance(events[1], Closed)
    assert events[1].retry_in_s == 60.0


@pytest.mark.parametrize("code", [1003, 1008, 1009, 3003, 4501, 4503, 4504, 4999])
async def test_final_codes_stop(code: int) -> None:
    """What would be the same next time ends the iteration with the code."""
    async with stream_server(says(then=closes(code, "why"))) as stream, subscriber(stream.url) as prices:
        await following(prices)
        with pytest.raises(StreamClosedError, match="why") as caught:
            await following(prices)
    assert (caught.value.code, caught.value.text) == (code, "why")
    assert len(stream.handshakes) == 1


@pytest.mark.parametrize(
    "code", [1000, 1001, 1011, 1012, 1013, 3000, 3008, 4001, 4008, 4012, 4029, 4499, 3999]
)
async def test_other_codes_reconnect(code: int) -> None:
    """Everything below 4500 that is no bug, and every unknown code, leads to another attempt."""
    async with stream_server(says(then=closes(code)), says()) as stream, subscriber(stream.url) as prices:
        _, closed, again = await take(prices, 3)
    assert isinstance(closed, Closed)
    assert closed.code == code
    assert isinstance(again, Welcome)


async def test_a_broken_link_is_1006() -> None:
    """Without a close frame the code is 1006, as in a browser."""

    async def vanish(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with stream_server(says(then=vanish), says()) as stream, subscriber(stream.url) as prices:
        _, closed, again = await take(prices, 3)
    assert isinstance(closed, Closed)
    assert (closed.code, closed.reason) == (1006, "link_lost")
    assert isinstance(again, Welcome)


async def test_a_silent_link_is_dead() -> None:
    """After 2.5 silent heartbeats the link is given up, however open its socket looks."""

    async def quiet(connection: ServerConnection) -> None:
        await welcome(connection, heartbeat_ms=20)
        await stay(connection)

    async with stream_server(quiet, says()) as stream, subscriber(stream.url) as prices:
        _, closed, again = await take(prices, 3)
    assert isinstance(closed, Closed)
    assert (closed.code, closed.reason) == (1006, "dead_link")
    assert isinstance(again, Welcome)


async def test_a_missing_welcome_is_not_waited_for() -> None:
    """Whoever accepts the handshake and then says nothing is left."""
    async with stream_server(stay, says()) as stream, subscriber(stream.url, open_timeout_s=0.2) as prices:
        closed, again = await take(prices, 2)
    assert isinstance(closed, Closed)
    assert closed.reason == "no_welcome"
    assert isinstance(again, Welcome)


async def test_busy_upgrades_wait_as_told() -> None:
    """429 and 503 lead to another attempt, not before Retry-After."""
    busy = {"code": "unavailable", "message": "Later.", "retryable": True}
    script = (refusal(503, busy), refusal(429, busy, retry_after="0"), says())
    async with stream_server(*script) as stream, subscriber(stream.url) as prices:
        first, second, third = await take(prices, 3)
    assert isinstance(first, Closed)
    assert (first.status, first.reason) == (503, "Later.")
    assert isinstance(second, Closed)
    assert second.status == 429
    assert isinstance(third, Welcome)


async def test_retry_after_is_kept() -> None:
    """The wait is what the relay asked for."""
    busy = {"code": "unavailable", "message": "Later.", "retryable": True}
    async with (
        stream_server(refusal(503, busy, retry_after="30")) as stream,
        subscriber(stream.url) as prices,
    ):
        closed = await following(prices)
    assert isinstance(closed, Closed)
    assert closed.retry_in_s == 30.0


@pytest.mark.parametrize("status", [400, 403, 404, 426, 302])
async def test_refused_upgrades_stop(status: int) -> None:
    """What the next attempt would not change is raised, with the relay's own sentence."""
    body = {"code": "forbidden", "message": "Not from there.", "retryable": False}
    async with stream_server(refusal(status, body)) as stream, subscriber(stream.url) as prices:
        with pytest.raises(HandshakeError, match="Not from there") as caught:
            await following(prices)
    assert (caught.value.status, caught.value.code) == (status, "forbidden")


async def test_redirects_are_not_followed() -> None:
    """A redirect would carry the token to another host."""
    async with stream_server(says()) as elsewhere:
        moved = refusal(307, {}, location=elsewhere.url)
        async with stream_server(moved) as stream, subscriber(stream.url) as prices:
            with pytest.raises(HandshakeError) as caught:
                await following(prices)
    assert caught.value.status == 307
    assert elsewhere.handshakes == []


async def test_refused_tokens_are_replaced_but_not_for_ever() -> None:
    """401 takes a new token; after five in a row a person has to look."""
    refused = {"code": "invalid_token", "message": "Take a new one.", "retryable": False}
    asked: list[str] = []

    async def token() -> str:
        asked.append(TOKEN)
        return TOKEN

    async with stream_server(refusal(401, refused)) as stream, subscriber(stream.url, token) as prices:
        assert all(isinstance(event, Closed) for event in await take(prices, 4))
        with pytest.raises(HandshakeError, match="Take a new one") as caught:
            await following(prices)
    assert caught.value.status == 401
    assert len(asked) == 5


async def test_a_token_as_text_opens_one_connection() -> None:
    """Refused, or used and lost, it can't open another, and the sentence says so."""
    refused = {"code": "invalid_token", "message": "Take a new one.", "retryable": False}
    async with stream_server(refusal(401, refused)) as stream, subscriber(stream.url, TOKEN) as prices:
        with pytest.raises(HandshakeError):
            await following(prices)
    async with stream_server(says(then=closes(1012))) as stream, subscriber(stream.url, TOKEN) as prices:
        await following(prices)
        with pytest.raises(StreamClosedError, match="used up") as caught:
            await following(prices)
    assert caught.value.code == 1012
    assert len(stream.handshakes) == 1


async def test_nobody_there_is_tried_again() -> None:
    """A stream that can't be reached is an event with a wait, and then another attempt."""
    async with subscriber("ws://127.0.0.1:9/ws/prices") as prices:
        first, second = await take(prices, 2)
    assert isinstance(first, Closed)
    assert isinstance(second, Closed)
    assert first.code == 1006
    assert "Connect call failed" in first.reason


async def test_other_servers_are_recognised() -> None:
    """A WebSocket server that doesn't select relay.v1 is no relay; an HTTP server answers with its status."""
    async with stream_server(stay, protocol=None) as stream, subscriber(stream.url) as prices:
        with pytest.raises(HandshakeError, match=r"relay\.v1"):
            await following(prices)
    async with http_server(answer(200, b"<html>")) as server:
        prices = subscriber(server.url.replace("http", "ws"))
        with pytest.raises(HandshakeError, match="200"):
            await following(prices)


async def test_the_issuers_answer_decides() -> None:
    """An issuer that refuses ends the iteration, one that is busy is asked again."""
    scoped = ScopedToken(token=TOKEN, endpoint="", channels=(), expires_in_s=30)
    answers: list[TokenError | ScopedToken] = [
        TokenError("unavailable", "Later.", status=503, retryable=True, retry_after_s=0.0),
        scoped,
        TokenError("invalid_session", "Log in.", status=401),
    ]

    async def token() -> ScopedToken:
        match answers.pop(0):
            case TokenError() as error:
                raise error
            case ScopedToken() as given:
                return given

    async with stream_server(says(then=closes(1012))) as stream, subscriber(stream.url, token) as prices:
        busy, opened, closed = await take(prices, 3)
        with pytest.raises(TokenError, match="Log in"):
            await following(prices)
    assert isinstance(busy, Closed)
    assert (busy.status, busy.reason) == (503, "Later.")
    assert isinstance(opened, Welcome)
    assert isinstance(closed, Closed)


async def test_subscribing_later_sends_frames() -> None:
    """Once connected, wishes go out as frames, and are part of the next connection too."""
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
        await connection.send("nonsense")
        await connection.send(b"\x00\xff")
        await send(connection, **value("update", 1))
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        _, first, second, update = await take(prices, 4)
    assert isinstance(first, Problem)
    assert isinstance(second, Problem)
    assert first.code == second.code == "malformed_frame"
    assert isinstance(update, Update)


async def test_closing_ends_the_iteration() -> None:
    """`aclose` from another task ends whoever iterates, connected or waiting, and says 1000 to the relay."""
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
    """A queue full of unread frames does not hold the goodbye up: the answer to it stands behind them."""
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
    """Whoever gives up waiting for an event and asks again later gets all of them."""
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
