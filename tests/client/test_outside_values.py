"""What comes from outside: answers of servers that are no relay, and numbers that become timers."""

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import (
    Backoff,
    Closed,
    HandshakeError,
    Problem,
    Publisher,
    PublishError,
    Snapshot,
    TokenError,
    Welcome,
)
from relay.client import fetch_token as fetch
from relay.client.backoff import MAX_WAIT_S, bounded_ms, bounded_s
from relay.client.events import RefreshFailed
from relay.client.frames import parse_server_frame
from relay.client.renewal import Renewal
from tests.support.client_cases import (
    MAX_JITTER_S,
    MILLISECONDS,
    MIN_REPEAT_S,
    REFUSALS,
    REFUSED_REQUESTS,
    RETRY_AFTER,
    MillisecondsCase,
    RefusalCase,
    RefusedRequest,
    WaitCase,
)
from tests.support.scripted_ingest import KEY, ingest_server
from tests.support.scripted_ingest import refused as refused_ingest
from tests.support.scripted_servers import (
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
from tests.support.sdk_subscriber import closes, following, says, subscriber, take

pytestmark = pytest.mark.usefixtures("compression")

BUSY = {"code": "unavailable", "message": "Later.", "retryable": True}


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
async def test_only_a_relays_own_error_ends_a_subscriber(case: RefusalCase) -> None:
    """The subscriber tries again after everything but a relay's own final error."""
    script = (refusal(case.status, case.body), says())
    async with stream_server(*script) as stream, subscriber(stream.url) as prices:
        if case.is_final:
            with pytest.raises(HandshakeError):
                await following(prices)
        else:
            closed, again = await take(prices, 2)
            assert isinstance(closed, Closed)
            assert closed.status == case.status
            assert isinstance(again, Welcome)


@pytest.mark.plain_only("No stream is opened.")
@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
async def test_only_a_relays_own_error_is_a_final_refusal_of_a_token(case: RefusalCase) -> None:
    """An issuer's refusal is retryable unless a relay says that it is not."""
    async with http_server(answer(case.status, case.body)) as server:
        with pytest.raises(TokenError) as caught:
            await fetch(server.url, "session")
    assert caught.value.retryable is not case.is_final


@pytest.mark.plain_only("No stream is opened.")
@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
async def test_only_a_relays_own_error_ends_publishing(case: RefusalCase) -> None:
    """Both transports publish after everything but a relay's own final error."""

    def quick() -> Backoff:
        return Backoff(first_s=0, cap_s=0)

    taken = {"channel": "prices.A", "epoch": "e1", "seq": 1}
    async with (
        http_server(answer(case.status, case.body), answer(200, taken)) as server,
        ingest_server(refusals=[refused_ingest(case.status, case.body)]) as ingest,
        Publisher(server.url, KEY, transport="http", backoff=quick) as by_http,
        Publisher(ingest.url, KEY, backoff=quick) as by_socket,
    ):
        for publisher in (by_http, by_socket):
            if case.is_final:
                with pytest.raises(PublishError):
                    await publisher.publish("prices.A", 1)
            else:
                await publisher.publish("prices.A", 1)


@pytest.mark.parametrize("case", RETRY_AFTER, ids=lambda case: case.header[:20])
async def test_retry_after_is_bounded(case: WaitCase) -> None:
    """A Retry-After header is kept up to 300 s; without a number the client's own back-off counts."""
    async with (
        stream_server(refusal(503, BUSY, retry_after=case.header)) as stream,
        subscriber(stream.url) as prices,
    ):
        closed = await following(prices)
    assert isinstance(closed, Closed)
    assert closed.retry_in_s == (case.wait_s or 0.0)  # this subscriber's own waits are zero


@pytest.mark.parametrize("case", MILLISECONDS, ids=lambda case: str(case.ms))
async def test_the_delay_of_a_restart_is_bounded(case: MillisecondsCase) -> None:
    """`delay_ms` is kept up to 300 s."""
    script = says({"type": "reconnect", "delay_ms": case.ms}, then=closes(1012))
    async with stream_server(script) as stream, subscriber(stream.url) as prices:
        _, closed = await take(prices, 2)
    assert isinstance(closed, Closed)
    assert closed.retry_in_s == case.wait_s


@pytest.mark.parametrize("case", MILLISECONDS, ids=lambda case: str(case.ms))
def test_the_times_of_a_refresh_are_bounded(case: MillisecondsCase) -> None:
    """`expires_in_ms` and `retry_after_ms` lead to a refresh within 300 s."""
    frame = parse_server_frame(b'{"type":"welcome","connection":"c","ts":0,"expires_at":9007199254740991}')
    assert isinstance(frame, Welcome)

    async def source() -> str:
        return TOKEN

    renewal = Renewal(source, frame, wake=lambda: None)
    renewal.warned(case.ms, 1000.0)
    assert renewal.due_at is not None
    assert 1000.0 <= renewal.due_at <= 1000.0 + case.wait_s
    renewal.warned(300_000, 1000.0)
    renewal.sent(7)
    problem = Problem(code="unavailable", retryable=True, id=7, retry_after_ms=case.ms)
    failed = renewal.refused(problem, 1000.0)
    assert isinstance(failed, RefreshFailed)
    assert failed.retry_in_s is None or failed.retry_in_s <= MAX_WAIT_S


@pytest.mark.parametrize("refused", REFUSED_REQUESTS, ids=lambda refused: refused.code)
@pytest.mark.parametrize("case", MILLISECONDS, ids=lambda case: str(case.ms))
async def test_a_refused_request_waits_at_most_five_minutes(
    case: MillisecondsCase, refused: RefusedRequest
) -> None:
    """`retry_after_ms` of a subscription is kept up to 300 s, and a refusal is not answered at once."""

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection)
        await send(connection, **refused.frame((await read(connection))["id"], case.ms))
        await send(connection, **value("snapshot", 1))
        await stay(connection)

    now = asyncio.get_running_loop().time
    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        await following(prices)
        before = now()
        await prices.subscribe("prices.A")
        assert isinstance(await following(prices), Snapshot)
        connection = prices._connection
        assert connection is not None
        assert connection.requests_at is not None
        wait_s = max(case.wait_s, MIN_REPEAT_S)
        assert before + wait_s <= connection.requests_at <= now() + wait_s


@pytest.mark.parametrize("case", MILLISECONDS, ids=lambda case: str(case.ms))
def test_every_number_of_milliseconds_is_bounded(case: MillisecondsCase) -> None:
    """One function bounds what frames say in milliseconds, and the back-off bounds what it is told."""
    assert bounded_ms(case.ms) == case.wait_s
    assert bounded_ms(10**400) == MAX_WAIT_S
    told = Backoff().next(told_s=float(case.ms) / 1000)
    assert case.wait_s <= told <= case.wait_s + MAX_JITTER_S


def test_what_is_no_number_is_no_wait() -> None:
    """NaN is a wait of zero seconds, and infinity one of 300."""
    assert bounded_s(float("nan")) == 0.0
    assert bounded_s(float("inf")) == MAX_WAIT_S


@pytest.mark.parametrize("heartbeat_ms", [86_400_000, 1 << 53, 10**30])
async def test_a_heartbeat_interval_is_bounded(heartbeat_ms: int) -> None:
    """A link with a very long `heartbeat_ms` is used like any other."""

    async def talk(connection: ServerConnection) -> None:
        await welcome(connection, heartbeat_ms=heartbeat_ms)
        await send(connection, **value("snapshot", 1))
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        _, snapshot = await take(prices, 2)
    assert isinstance(snapshot, Snapshot)
