"""How a subscription loses its connection and comes back, or stops: each way that a stream or issuer can end it."""

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import (
    Closed,
    HandshakeError,
    ScopedToken,
    StreamClosedError,
    TokenError,
    Welcome,
)
from tests.support.client_cases import FINAL_CLOSES, RETRIED_CLOSES
from tests.support.scripted_servers import (
    TOKEN,
    answer,
    http_server,
    refusal,
    stay,
    stream_server,
    value,
    welcome,
)
from tests.support.sdk_subscriber import closes, following, says, subscriber, take

pytestmark = pytest.mark.usefixtures("compression")


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
        events = await take(prices, 8)
    assert [type(event).__name__ for event in events] == [
        "Welcome",
        "Snapshot",
        "Update",
        "Closed",
        "Status",
        "Welcome",
        "Status",
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


async def abort(connection: ServerConnection) -> None:
    """Break the link without a close frame."""
    connection.transport.abort()


@pytest.mark.parametrize("code", FINAL_CLOSES)
async def test_a_final_close_code_ends_the_iteration(code: int) -> None:
    """What would be the same next time ends the iteration with the code."""
    async with stream_server(says(then=closes(code, "why"))) as stream, subscriber(stream.url) as prices:
        await following(prices)
        with pytest.raises(StreamClosedError, match="why") as caught:
            await following(prices)
    assert (caught.value.code, caught.value.text) == (code, "why")
    assert len(stream.handshakes) == 1


@pytest.mark.parametrize("code", RETRIED_CLOSES)
async def test_every_other_close_code_leads_to_a_reconnect(code: int) -> None:
    """Everything below 4500 that is no bug, and every unknown code, leads to another attempt."""
    # 1006 stands for a link that broke: no close frame has it
    end = abort if code == 1006 else closes(code)
    async with stream_server(says(then=end), says()) as stream, subscriber(stream.url) as prices:
        _, closed, again = await take(prices, 3)
    assert isinstance(closed, Closed)
    assert closed.code == code
    assert closed.reason == ("link_lost" if code == 1006 else "")
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
    """A server that accepts the handshake and sends nothing is disconnected."""
    async with stream_server(stay, says()) as stream, subscriber(stream.url, open_timeout_s=1.0) as prices:
        closed, again = await take(prices, 2)
    assert isinstance(closed, Closed)
    assert closed.reason == "no_welcome"
    assert isinstance(again, Welcome)


async def test_a_busy_upgrade_waits_for_retry_after() -> None:
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
async def test_a_final_refusal_of_the_upgrade_is_raised(status: int) -> None:
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
            closed = await following(prices)
    assert isinstance(closed, Closed)
    assert closed.status == 307
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
    """After a refusal or a lost connection it can't open another one, and the error says so."""
    refused = {"code": "invalid_token", "message": "Take a new one.", "retryable": False}
    async with stream_server(refusal(401, refused)) as stream, subscriber(stream.url, TOKEN) as prices:
        with pytest.raises(HandshakeError):
            await following(prices)
    async with stream_server(says(then=closes(1012))) as stream, subscriber(stream.url, TOKEN) as prices:
        await following(prices)
        with pytest.raises(StreamClosedError, match="opens one connection") as caught:
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
        closed = await following(prices)
        assert isinstance(closed, Closed)
        assert "relay.v1" in closed.reason
    async with http_server(answer(200, b"<html>")) as server:
        async with subscriber(server.url.replace("http", "ws")) as prices:
            closed = await following(prices)
        assert isinstance(closed, Closed)
        assert "200" in closed.reason


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
