"""Connections that are refreshed before their end, and those that can't be."""

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import (
    Closed,
    Event,
    Problem,
    Refreshed,
    RefreshFailed,
    Subscriber,
    TokenError,
    TokenExpiring,
    Update,
    Welcome,
    fetch_token,
)
from relay.client.renewal import Renewal
from tests.support.relay_process import Relay, running
from tests.support.scripted_servers import TOKEN, read, send, stay, stream_server, value, welcome
from tests.support.sdk_subscriber import following, fresh, subscriber, take

pytestmark = pytest.mark.usefixtures("compression")

SHORT = """
[endpoints.short]
path = "/ws/short"
channels = ["prices.>"]
max_age_s = 8

[grants.visitor]
short = ["prices.>"]
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay."""
    with running(tmp_path_factory.mktemp("relay"), extra=SHORT) as relay:
        yield relay


def visitor(relay: Relay, tokens: Callable[[int], str | TokenError | None] = lambda _: None) -> Subscriber:
    """Return a subscriber whose connections live for eight seconds; `tokens` replaces tokens by their number."""
    session = relay.session(roles=["visitor"])
    count = 0

    async def token() -> str:
        nonlocal count
        count += 1
        match tokens(count):
            case TokenError() as error:
                raise error
            case str() as text:
                return text
        return (await fetch_token(relay.url, session, endpoint="short")).token

    return subscriber(f"{relay.stream_url}/ws/short", token)


async def until(events: Subscriber, *kinds: type[Event]) -> list[Event]:
    """Return the events up to the first of some kinds."""
    got = [await following(events)]
    while not isinstance(got[-1], kinds):
        got.append(await following(events))
    return got


async def test_a_connection_outlives_its_age(shared: Relay) -> None:
    """Refreshed in time, one connection goes on, and nothing else happens to it."""
    async with visitor(shared) as events:
        await events.subscribe("prices.A")
        got = await until(events, Refreshed, Closed)
    record = await shared.audited("connection.refreshed")
    opened, refreshed = got[0], got[-1]
    assert isinstance(opened, Welcome)
    assert isinstance(refreshed, Refreshed)
    assert refreshed.expires_at > opened.expires_at
    assert [type(event).__name__ for event in got[1:-1]] == ["Subscribed", "TokenExpiring"]
    assert record["relay"]["token"]["transport"] == "refresh"


async def test_a_refused_refresh_is_tried_again(shared: Relay) -> None:
    """The relay refuses one token: an event, the old end stands, and another token is taken in time."""
    async with visitor(shared, lambda number: TOKEN if number == 2 else None) as events:
        got = await until(events, Refreshed, Closed)
    assert isinstance(got[-1], Refreshed)
    [failed] = [event for event in got if isinstance(event, RefreshFailed)]
    assert (failed.code, failed.status) == ("invalid_token", None)
    assert failed.retry_in_s is not None


async def test_without_a_refresh_the_connection_ends_and_comes_back(shared: Relay) -> None:
    """An issuer that says no ends the attempts; at its age the connection is closed, and a new one opened."""
    no = TokenError("invalid_session", "Log in.", status=401)
    async with visitor(shared, lambda number: no if number == 2 else None) as events:
        got = await until(events, Closed) + await until(events, Welcome)
    [failed] = [event for event in got if isinstance(event, RefreshFailed)]
    assert (failed.code, failed.status, failed.retry_in_s) == ("invalid_session", 401, None)
    [closed] = [event for event in got if isinstance(event, Closed)]
    assert (closed.code, closed.reason) == (4001, "token_expired")


async def test_values_do_not_wait_for_the_issuer() -> None:
    """While a token is being asked for, prices go on."""
    asked, answer = asyncio.Event(), asyncio.Event()
    tokens = 0

    async def token() -> str:
        nonlocal tokens
        tokens += 1
        if tokens > 1:
            asked.set()
            await answer.wait()
        return TOKEN

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection, expires_at=2_000_000_000)
        await send(connection, type="token_expiring", expires_in_ms=0)
        await asked.wait()
        await send(connection, **value("update", 1))
        frame = await read(connection)
        assert frame == {"id": 1, "type": "refresh", "token": TOKEN}
        await send(connection, type="refreshed", id=1, expires_at=3_000_000_000)
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url, token) as prices:
        _, expiring, update = await take(prices, 3)
        answer.set()
        refreshed = await following(prices)
    assert isinstance(expiring, TokenExpiring)
    assert isinstance(update, Update)
    assert isinstance(refreshed, Refreshed)


@pytest.mark.parametrize("ending", ["close", "cut"])
async def test_an_issuer_is_not_waited_for_when_the_connection_is_gone(ending: str) -> None:
    """Closed or lost while a token is being asked for: the request is given up, and nothing is left behind."""
    asked, cancelled = asyncio.Event(), asyncio.Event()
    tokens = 0

    async def token() -> str:
        nonlocal tokens
        tokens += 1
        if tokens == 2:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return TOKEN

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await send(connection, type="token_expiring", expires_in_ms=0)
        await asked.wait()
        if ending == "cut":
            connection.transport.abort()
        else:
            await send(connection, **value("update", 1))
        await stay(connection)

    async def second(connection: ServerConnection) -> None:
        await welcome(connection)
        await stay(connection)

    async with stream_server(talk, second) as stream, subscriber(stream.url, token) as prices:
        *_, last = await take(prices, 3)
        if ending == "cut":
            assert isinstance(last, Closed)
            assert isinstance(await following(prices), Welcome)
    async with asyncio.timeout(10):
        await cancelled.wait()


async def test_a_token_as_text_can_not_refresh() -> None:
    """It opened its connection and is used up: the warning is handed out, and nothing is sent."""
    sent: list[Any] = []

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await send(connection, type="token_expiring", expires_in_ms=0)
        await send(connection, type="error", id=1, code="busy", message="Not yours.")
        sent.append(await read(connection))

    async with stream_server(talk) as stream, subscriber(stream.url, TOKEN) as prices:
        assert not prices.can_refresh
        _, expiring, problem = await take(prices, 3)
        await prices.subscribe("prices.A")
    assert isinstance(expiring, TokenExpiring)
    assert isinstance(problem, Problem)
    assert [frame["type"] for frame in sent] == ["subscribe"]


async def test_a_failing_token_function_is_reported_and_called_again() -> None:
    """An exception of the caller's token function is the reason of a failed refresh."""
    tokens = 0

    async def token() -> str:
        nonlocal tokens
        tokens += 1
        if tokens == 2:
            raise LookupError("no vault")
        return TOKEN

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await send(connection, type="token_expiring", expires_in_ms=0)
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url, token) as prices:
        await take(prices, 2)
        failed = await following(prices)
        assert isinstance(failed, RefreshFailed)
        assert "LookupError: no vault" in failed.reason


@pytest.mark.plain_only("No connection is opened.")
async def test_a_refresh_whose_sending_was_given_up_is_sent_again() -> None:
    """A caller that stops waiting at that moment does not lose the token that was just fetched."""
    awake = asyncio.Event()
    renewal = Renewal(fresh, Welcome(connection="c", ts=0, expires_at=1000), wake=awake.set, random=Random(1))
    renewal.warned(0, 0.0)
    assert renewal.is_due(0.0)
    assert renewal.poll(0.0) is None
    assert not renewal.is_due(0.0)
    await awake.wait()
    assert renewal.poll(0.0) == TOKEN
    assert renewal.is_due(0.0)
    assert renewal.poll(0.0) == TOKEN
    renewal.sent(7)
    assert not renewal.is_due(0.0)
