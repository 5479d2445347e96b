"""A publisher on a socket of the real relay: what is there, and what comes again, when either of them is killed."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.client import (
    Backoff,
    Closed,
    Event,
    Gap,
    Publisher,
    PublishError,
    Receipt,
    Snapshot,
    Status,
    Subscribed,
    Subscriber,
    Update,
    Welcome,
    fetch_token,
)
from tests.support.relay_process import PUBLISHER_KEY, Relay, running
from tests.support.sdk_subscriber import following
from tests.support.tcp_proxies import proxy_to

PROGRAM = """
import asyncio, sys
from relay.client import Message, Publisher

async def main(url, key, first):
    async with Publisher(url, key) as publisher:
        number = int(first)
        while True:
            batch = [(f"trades.KILLED", number + place) for place in range(20)]
            results = await publisher.publish_many(
                Message(channel=channel, data=data, idempotency_key=f"trade-{data}") for channel, data in batch
            )
            number += 20
            print(number - 1, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for the tests that leave it alone."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def publisher_to(url: str) -> Publisher:
    # a relay that starts takes a second, which is many of these attempts
    return Publisher(url, PUBLISHER_KEY, attempts=1000, backoff=lambda: Backoff(first_s=0.05, cap_s=0.05))


@asynccontextmanager
async def reading(relay: Relay, endpoint: str, *channels: str) -> AsyncIterator[Subscriber]:
    """Subscribe and wait for the ack."""
    session = relay.session()

    async def token() -> str:
        return (await fetch_token(relay.url, session, endpoint=endpoint)).token

    url = f"{relay.stream_url}/ws/{endpoint}"
    async with Subscriber(url, token, backoff=Backoff(first_s=0.05, cap_s=0.05)) as events:
        await events.subscribe(channels)
        await until(events, Subscribed)
        yield events


async def until(events: Subscriber, kind: type[Event]) -> list[Event]:
    """Return the events up to the first of a kind."""
    got = [await following(events)]
    while not isinstance(got[-1], kind):
        got.append(await following(events))
    return got


async def data(events: Subscriber, last: object) -> list[object]:
    """Return the values that come, up to the last one."""
    got: list[object] = []
    while last not in got:
        event = await following(events)
        got += [event.data] if isinstance(event, Snapshot | Update) else []
    return got


async def test_a_flood_arrives_once_and_in_order(shared: Relay) -> None:
    """Thousands of messages over one connection: each acked, and each there once, in its channel's order."""
    async with (
        reading(shared, "trades", "trades.FLOOD") as events,
        publisher_to(shared.internal_url) as publisher,
    ):
        for number in range(5000):
            await publisher.send("trades.FLOOD", number)
        await publisher.flush()
        assert await data(events, 4999) == list(range(5000))


async def test_answers_are_those_of_the_relay(shared: Relay) -> None:
    """Receipts, drops, signs of life and refusals, one by one."""
    async with publisher_to(shared.internal_url) as publisher:
        first = await publisher.publish("prices.ANSWERS", {"bid": "1.10"}, version=5, source_ts=7)
        assert first == Receipt(channel="prices.ANSWERS", epoch=first.epoch)
        assert first.epoch
        assert (await publisher.publish("prices.ANSWERS", 1, version=4)).dropped == "stale"
        assert (await publisher.publish("prices.ANSWERS", 1, version=1, version_epoch=1)).dropped is None
        assert (await publisher.publish("trades.ANSWERS", 1, idempotency_key="k")).dropped is None
        assert (await publisher.publish("trades.ANSWERS", 1, idempotency_key="k")).dropped == "duplicate"
        assert (await publisher.alive("prices.ANSWERS")).dropped is None
        results = await publisher.publish_many(
            [("orders.1", 1), ("prices.ANSWERS", b'{"a":1,"a":2}'), ("prices.B", 1)]
        )
        codes = [result.code for result in results if isinstance(result, PublishError)]
        assert codes == ["forbidden", "invalid_request"]
        assert isinstance(results[2], Receipt)
    async with Publisher(shared.internal_url, "pricing.wrong") as wrong:
        with pytest.raises(PublishError) as caught:
            await wrong.publish("prices.A", 1)
        assert (caught.value.code, caught.value.status) == ("invalid_key", 401)


async def test_the_largest_message_fits(shared: Relay) -> None:
    """64 KiB are taken, over the socket too, where an id comes on top; a byte more is refused, and spoils nothing."""
    longest = 65_536 - len('{"channel":"prices.LONG","data":""}')
    async with publisher_to(shared.internal_url) as publisher:
        await publisher.publish("prices.LONG", f'"{"x" * longest}"')
        with pytest.raises(PublishError, match="at most 65536"):
            await publisher.publish("prices.LONG", f'"{"x" * (longest + 1)}"')
        await publisher.publish("prices.LONG", {"is": "short"})


async def test_cuts_in_the_middle_of_batches_lose_and_repeat_nothing(shared: Relay) -> None:
    """A cable that breaks again and again while messages are on their way: each arrives once, in order."""
    async with reading(shared, "trades", "trades.CUT") as events, proxy_to(shared.ports[2]) as proxy:
        async with publisher_to(proxy.url.replace("ws:", "http:")) as publisher:
            for number in range(6000):
                await publisher.send("trades.CUT", number)
                if number % 997 == 996:
                    proxy.cut()
                    proxy.restore()
            await publisher.flush()
        assert await data(events, 5999) == list(range(6000))


async def test_a_publisher_that_is_killed_goes_on_where_it_was(shared: Relay) -> None:
    """kill -9 in mid-batch: what was acked is there; the rest is sent again under the same keys, and nothing twice."""
    async with reading(shared, "trades", "trades.KILLED") as events:
        acked = await asyncio.to_thread(_run_and_kill, shared, 0, 3)
        again = await asyncio.to_thread(_run_and_kill, shared, acked + 1, 3)
        got = await data(events, again)
    assert acked in got
    assert got == list(range(len(got)))


def _run_and_kill(relay: Relay, first: int, batches: int) -> int:
    """Publish in another process and kill it; returns the last number that it was acked for, as far as it said."""
    command = [sys.executable, "-c", PROGRAM, relay.internal_url, PUBLISHER_KEY, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(batches)]
        process.kill()
        return said[-1]


async def test_a_relay_that_is_killed_gets_every_price_again(tmp_path: Path) -> None:
    """kill -9 and a new start: the SDK sends the last prices by itself; they are stale until then, and streams gap."""
    with running(tmp_path) as relay:
        async with (
            publisher_to(relay.internal_url) as publisher,
            reading(relay, "prices", "prices.A", "prices.B") as prices,
            reading(relay, "trades", "trades.A") as trades,
        ):
            for number in range(3):
                await publisher.publish("prices.A", number)
                await publisher.publish("prices.B", -number, version=number)
                await publisher.publish("trades.A", number)
            await data(prices, -2)
            await data(trades, 2)
            await asyncio.to_thread(relay.kill)
            [*_, closed] = await until(prices, Closed)
            assert isinstance(closed, Closed)
            assert await states(prices) == {"prices.A": "stale", "prices.B": "stale"}
            await asyncio.to_thread(relay.start)

            back: dict[str, object] = {}
            while len(back) < 2:
                event = await following(prices)
                # live only behind a value of the new epoch: nobody is left with a price that looks live
                assert not isinstance(event, Status) or event.state == "stale" or event.channel in back
                if isinstance(event, Snapshot | Update):
                    back[event.channel] = event.data
            assert back == {"prices.A": 2, "prices.B": -2}

            told = await until(trades, Welcome)
            told += await until(trades, Subscribed)
            assert isinstance(told[-1], Subscribed)
            assert [item.recovered for item in told[-1].channels] == [False]
            await publisher.publish("trades.A", 3)
            got: list[Event] = []
            while not (isinstance(event := await following(trades), Snapshot | Update) and event.data == 3):
                got.append(event)
            assert [event.data for event in got if isinstance(event, Snapshot | Update)] == []
            assert sum(isinstance(event, Gap) for event in [*told, *got]) == 1


async def states(events: Subscriber) -> dict[str, str]:
    """Return what is said next of both channels."""
    told: dict[str, str] = {}
    while len(told) < 2:
        event = await following(events)
        if isinstance(event, Status):
            told[event.channel] = event.state
    return told


async def test_a_relay_that_drains_takes_what_it_was_sent(tmp_path: Path) -> None:
    """SIGTERM under load: the publisher comes back when it was told to, and goes on; what was acked was not lost."""
    with running(tmp_path) as relay:
        async with publisher_to(relay.internal_url) as publisher:
            await publisher.publish("prices.A", 0)
            is_back = asyncio.Event()

            async def load() -> int:
                number = 0
                while not is_back.is_set():
                    number += 1
                    await publisher.send(
                        "prices.A", number
                    )  # waits while the queue is full and the relay away
                    await asyncio.sleep(0)
                return number

            loading = asyncio.create_task(load())
            await asyncio.to_thread(relay.stop)
            await asyncio.to_thread(relay.start)
            is_back.set()
            last = await loading
            await publisher.flush()
            async with reading(relay, "prices", "prices.A") as events:
                assert await data(events, last)
