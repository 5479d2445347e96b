"""Every message of a stream once and in order, against a real relay that is cut off, killed and drained."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from relay.client import (
    Backoff,
    Closed,
    Event,
    Gap,
    Position,
    Problem,
    Publisher,
    Snapshot,
    Status,
    Subscribed,
    Subscriber,
    Unsubscribed,
    Update,
    Welcome,
    fetch_token,
)
from tests.support.compression_ways import way
from tests.support.relay_process import PUBLISHER_KEY, Relay, running
from tests.support.sdk_subscriber import following
from tests.support.tcp_proxies import Proxy, proxy_to

pytestmark = pytest.mark.usefixtures("compression")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for the tests that leave it alone."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for the tests that end it and start it again."""
    with running(tmp_path_factory.mktemp("restarted")) as relay:
        yield relay


@pytest.fixture
async def publisher(shared: Relay) -> AsyncIterator[Publisher]:
    """Publish to it."""
    async with Publisher(shared.internal_url, PUBLISHER_KEY, transport="http") as publisher:
        yield publisher


def trades(relay: Relay, base: str = "", *, names: list[str] | None = None, **options: Any) -> Subscriber:
    """Return a subscriber at the trades endpoint; `names` are the channels that its tokens name."""
    session = relay.session()

    async def token() -> str:
        scoped = await fetch_token(relay.url, session, endpoint="trades", channels=names)
        return scoped.token

    return Subscriber(
        f"{base or relay.stream_url}/ws/trades",
        token,
        backoff=Backoff(first_s=0.2, cap_s=0.2),
        compress=way.compressed,
        **options,
    )


async def until(events: Subscriber, kind: type[Event]) -> list[Event]:
    """Return the events up to the first of a kind."""
    got = [await following(events)]
    while not isinstance(got[-1], kind):
        got.append(await following(events))
    return got


async def numbers(events: Subscriber, channel: str, last: int) -> tuple[list[int], list[Event]]:
    """Return the numbers of one channel's trades up to the last one, and all else that came."""
    got: list[int] = []
    others: list[Event] = []
    while last not in got:
        event = await following(events)
        if isinstance(event, Snapshot | Update) and event.channel == channel:
            got.append(event.data)
        else:
            others.append(event)
    return got, others


async def publish(publisher: Publisher, channel: str, first: int, last: int) -> None:
    """Publish numbered trades."""
    await publisher.publish_many((channel, number) for number in range(first, last + 1))


@pytest.mark.parametrize(
    ("scope", "wish"), [("trades.BOTH", "trades.BOTH"), ("trades.>", "trades.NAME"), ("trades.>", "trades.*")]
)
async def test_messages_during_a_cut_link_are_replayed(
    shared: Relay, publisher: Publisher, scope: str, wish: str
) -> None:
    """By name or by pattern, with a token that subscribes to the name by itself or not: all of it, once, in order."""
    channel = wish.replace("*", "STAR")
    await publish(publisher, channel, 1, 1)
    async with proxy_to(shared.ports[1]) as proxy, trades(shared, proxy.url, names=[scope]) as events:
        await events.subscribe(wish)
        got, _ = await numbers(events, channel, 1)
        await publish(publisher, channel, 2, 4)
        got += (await numbers(events, channel, 4))[0]
        proxy.cut()
        await until(events, Closed)
        await publish(publisher, channel, 5, 9)
        proxy.restore()
        await until(events, Welcome)
        await publish(publisher, channel, 10, 12)
        more, others = await numbers(events, channel, 12)
    assert got + more == list(range(1, 13))
    assert not [event for event in others if isinstance(event, Gap | Problem)]


async def test_messages_beyond_the_history_are_a_gap(shared: Relay, publisher: Publisher) -> None:
    """More messages came than the relay keeps: a gap after the last received one, and then the newest one."""
    await publish(publisher, "trades.OLD", 1, 3)
    async with proxy_to(shared.ports[1]) as proxy, trades(shared, proxy.url) as events:
        await events.subscribe("trades.OLD")
        await numbers(events, "trades.OLD", 3)
        before = events.positions["trades.OLD"]
        proxy.cut()
        await until(events, Closed)
        await publish(publisher, "trades.OLD", 4, 40)
        proxy.restore()
        got, others = await numbers(events, "trades.OLD", 40)
    assert got == [40]
    assert [event for event in others if isinstance(event, Gap)] == [
        Gap(channel="trades.OLD", epoch=before.epoch, seq=before.seq)
    ]


@pytest.mark.parametrize("wish", ["trades.SAVED", "trades.*"])
async def test_a_consumer_goes_on_where_it_stopped(shared: Relay, publisher: Publisher, wish: str) -> None:
    """Positions that a consumer saved resume in another process: what came in between, and no more."""
    channel = wish.replace("*", "STARRED")
    await publish(publisher, channel, 1, 3)
    async with trades(shared) as events:
        await events.subscribe(wish)
        await numbers(events, channel, 3)
        saved = events.positions
    await publish(publisher, channel, 4, 8)
    async with trades(shared, since=saved) as events:
        await events.subscribe(wish)
        got, others = await numbers(events, channel, 8)
        assert events.positions[channel] == Position(
            channel=channel, epoch=saved[channel].epoch, seq=saved[channel].seq + 5
        )
    assert got == [4, 5, 6, 7, 8]
    assert [event.channel for event in others if isinstance(event, Gap)] == []
    acked = [item.channel for event in others if isinstance(event, Subscribed) for item in event.channels]
    assert set(acked) <= {wish}  # the names that the replay took are not the caller's business


async def test_subscribing_later_resumes_too(shared: Relay, publisher: Publisher) -> None:
    """A channel that is subscribed on an open connection goes on at its saved position."""
    before = (await publisher.publish("trades.LATER", 1)).position
    await publish(publisher, "trades.LATER", 2, 4)
    async with trades(shared, since={"trades.LATER": before}) as events:
        await events.subscribe("trades.OTHER")
        await until(events, Subscribed)
        await events.subscribe("trades.LATER")
        assert (await numbers(events, "trades.LATER", 4))[0] == [2, 3, 4]


async def test_subscribing_twice_changes_nothing(shared: Relay, publisher: Publisher) -> None:
    """A stream that flows goes on: the same name again, or a pattern around it, neither repeats nor loses a thing."""
    await publish(publisher, "trades.TWICE", 1, 2)
    async with trades(shared) as events:
        await events.subscribe("trades.TWICE")
        got, _ = await numbers(events, "trades.TWICE", 2)
        await events.subscribe("trades.TWICE")
        await publish(publisher, "trades.TWICE", 3, 4)
        await events.subscribe("trades.*")
        await publish(publisher, "trades.TWICE", 5, 6)
        more, others = await numbers(events, "trades.TWICE", 6)
    assert got[-1:] + more == [2, 3, 4, 5, 6]
    assert not [event for event in others if isinstance(event, Gap)]


async def test_a_relay_that_lost_its_memory_is_a_gap(restarted: Relay) -> None:
    """After kill -9 the epoch is a new one: a gap is told, then the stream goes on, and prices with it."""
    async with Publisher(restarted.internal_url, PUBLISHER_KEY) as publisher:
        await publish(publisher, "trades.A", 1, 3)
        async with trades(restarted) as events:
            await events.subscribe("trades.A")
            _, before = await numbers(events, "trades.A", 3)
            await asyncio.to_thread(restarted.kill)
            lost = await until(events, Closed)
            assert isinstance(lost[-1], Closed)
            assert lost[-1].code == 1006
            lost += await until(events, Closed)
            states: list[str | None] = []
            for event in (*before, *lost):  # on a busy machine the ack may call the channel stale already
                states += [item.state for item in event.channels] if isinstance(event, Subscribed) else []
                states += [event.state] if isinstance(event, Status) else []
            assert states[-1] == "stale"
            await asyncio.to_thread(restarted.start)
            await publish(publisher, "trades.A", 4, 5)
            got, others = await numbers(events, "trades.A", 5)
    assert got[-1] == 5
    assert sum(isinstance(event, Gap) for event in others) == 1


async def test_a_drained_relay_is_come_back_to(restarted: Relay) -> None:
    """SIGTERM names a time to come back; a new token opens the next connection, and values go on."""
    async with Publisher(restarted.internal_url, PUBLISHER_KEY) as publisher, trades(restarted) as events:
        await publish(publisher, "trades.A", 1, 1)
        await events.subscribe("trades.A")
        await numbers(events, "trades.A", 1)
        assert restarted.process is not None
        restarted.process.send_signal(signal.SIGTERM)
        [*_, closed] = await until(events, Closed)
        assert isinstance(closed, Closed)
        assert (closed.code, closed.reason) == (1012, "restart")
        assert closed.retry_in_s > 0
        await asyncio.to_thread(restarted.stop)
        await asyncio.to_thread(restarted.start)
        await publish(publisher, "trades.A", 2, 2)
        assert (await numbers(events, "trades.A", 2))[0] == [2]


async def test_leaving_a_channel_and_coming_back_is_no_gap(shared: Relay, publisher: Publisher) -> None:
    """Left and subscribed again, at once and after the answer, a stream begins with its newest message."""
    async with trades(shared) as events:
        await publish(publisher, "trades.BACK", 1, 3)
        await events.subscribe("trades.BACK")
        await numbers(events, "trades.BACK", 3)
        last = 3
        for waits_for_answer in (False, True, False, True):
            await events.unsubscribe("trades.BACK")
            if waits_for_answer:
                await until(events, Unsubscribed)
            await publish(publisher, "trades.BACK", last + 1, last + 2)
            await events.subscribe("trades.BACK")
            told = await until(events, Subscribed)
            await publish(publisher, "trades.BACK", last + 3, last + 4)
            got, others = await numbers(events, "trades.BACK", last + 4)
            assert got in ([last + 2, last + 3, last + 4], [last + 3, last + 4], [last + 4])
            assert not [event for event in (*told, *others) if isinstance(event, Gap)]
            last += 4


async def test_a_link_cut_again_and_again_loses_nothing(shared: Relay, publisher: Publisher) -> None:
    """Ten cuts at any moment while trades come: every trade, once, in order."""
    async with proxy_to(shared.ports[1]) as proxy, trades(shared, proxy.url) as events:
        await events.subscribe("trades.*")
        await publish(publisher, "trades.AGAIN", 1, 1)
        await until(events, Welcome)
        got, _ = await numbers(events, "trades.AGAIN", 1)
        for turn in range(10):
            first = len(got) + 1
            await publish(publisher, "trades.AGAIN", first, first + 4)
            flicker(proxy)
            await publish(publisher, "trades.AGAIN", first + 5, first + 8)
            more, others = await numbers(events, "trades.AGAIN", first + 8)
            assert not [event for event in others if isinstance(event, Gap)], turn
            got += more
    assert got == list(range(1, 92))


def flicker(proxy: Proxy) -> None:
    """Break the connections that there are."""
    proxy.cut()
    proxy.restore()
