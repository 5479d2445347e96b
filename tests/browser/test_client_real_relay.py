"""relay-client.js in Chromium against a relay process that is killed, drained, cut off, and grows old.

The page's clock is stopped, so that its back-offs and heartbeats pass when the test says; the relay's is real.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.support.blocking_proxies import refusing_upgrades
from tests.support.chromium import require_playwright
from tests.support.real_relay_page import BTC, come_back, open_page, publish, values
from tests.support.relay_process import Relay, make_relay
from tests.support.slow_readers import PRICE, WORK_MS, check_that_values_are_skipped
from tests.support.tcp_proxies import Link, linked

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEAD_MS = 12_500
Ways = dict[str, Any]
LIFE_S = 5
"""Long enough for a busy machine to refresh in time, short enough to wait for."""


@pytest.fixture(params=["subprotocol", "sse"])
def ways(request: pytest.FixtureRequest, compression: bool) -> Ways:
    """The options for one transport, with or without compression: what a page sees must be the same in each way."""
    return {"transports": [request.param], "interval_ms": 50 if compression else 0}


@pytest.fixture
def service(tmp_path: Path) -> Relay:
    """A relay's settings and keys; it is not running yet."""
    return make_relay(tmp_path)


@pytest_asyncio.fixture(loop_scope="session")
async def running(service: Relay) -> AsyncIterator[Relay]:
    """A running relay."""
    await asyncio.to_thread(service.start)
    yield service
    await asyncio.to_thread(service.stop)


@pytest_asyncio.fixture(loop_scope="session")
async def short_lived(service: Relay) -> AsyncIterator[Relay]:
    """A running relay whose connections live for `LIFE_S`."""
    service.environment["RELAY_ENDPOINTS__TRADES__MAX_AGE_S"] = str(LIFE_S)
    await asyncio.to_thread(service.start)
    yield service
    await asyncio.to_thread(service.stop)


@pytest_asyncio.fixture(loop_scope="session")
async def link(service: Relay) -> AsyncIterator[Link]:
    """A link to the relay's WebSocket listener."""
    async with linked(service.ports[1]) as link:
        yield link


async def test_a_killed_relay_is_found_again_and_the_price_is_stale_meanwhile(
    page: Page, running: Relay, ways: Ways
) -> None:
    """The new process has a new epoch and no values: the old one stays on the screen, and stays stale."""
    tab = await open_page(page, running, endpoint="prices", follow="prices.BTC-USD", **ways)
    await tab.state("open")
    await publish(running, 1, channel="prices.BTC-USD")
    assert await values(tab, 1) == [1]
    await asyncio.to_thread(running.kill)
    assert (await tab.next("stale"))["channel"] == "prices.BTC-USD"
    await tab.wait_out(await tab.state("waiting"))
    assert (await tab.state("waiting"))["status"] == 0  # the issuer is away too
    await asyncio.to_thread(running.start)
    await page.clock.run_for(20_000)
    await come_back(tab)
    assert "live" not in tab.rest()
    await publish(running, 2, channel="prices.BTC-USD")
    assert await values(tab, 1) == [2]
    assert (await tab.next("live"))["channel"] == "prices.BTC-USD"


async def test_prices_come_as_batches_where_the_page_asks_for_them(
    page: Page, running: Relay, ways: Ways, compression: bool
) -> None:
    """With an interval, over each transport. Without one nothing is compressed."""
    seen: list[Any] = []
    page.on(
        "response",
        lambda response: seen.append(
            response.headers.get("content-encoding") if "/ws/" in response.url else None
        ),
    )
    page.on("websocket", lambda socket: socket.on("framereceived", lambda data: seen.append(data)))
    channel = "prices.BTC-USD"
    tab = await open_page(page, running, endpoint="prices", follow=channel, **ways)
    await tab.state("open")
    for number in range(3):
        value = {"number": number, "text": "a" * 500}
        assert (await running.publish(channel, value)).status_code == 200
        assert (await tab.next("value"))["data"] == value
    batches = [one for one in seen if str(one).startswith('{"type":"batch"')]
    if ways["transports"] == ["sse"]:
        assert ("gzip" in seen) == compression
    else:
        assert len(batches) == (3 if compression else 0)


async def test_a_drained_relay_is_left_for_as_long_as_it_says(page: Page, running: Relay, ways: Ways) -> None:
    """It told each client a moment of its own; neither earlier nor with a back-off on top."""
    tab = await open_page(page, running, **ways)
    await tab.state("open")
    assert await asyncio.to_thread(running.stop, signal.SIGTERM) == 0
    delay_ms = (await tab.next("reconnect"))["delay_ms"]
    change = await tab.state("waiting")
    assert (change["code"], change["retryInMs"]) == (1012, delay_ms)
    await asyncio.to_thread(running.start)
    await page.clock.run_for(delay_ms - 1)
    assert await page.evaluate("stream.state") == "waiting"
    await page.clock.run_for(2)
    await tab.state("open")


async def test_a_link_that_is_cut_silently_is_stale_then_dead_then_new(
    page: Page, running: Relay, link: Link, ways: Ways
) -> None:
    """No close arrives: the client's own clock has to tell. What was published meanwhile comes, in order."""
    tab = await open_page(page, running, url=f"ws://127.0.0.1:{link.port}/ws/trades", **ways)
    await tab.state("open")
    await publish(running, 1, 2)
    assert await values(tab, 2) == [1, 2]
    link.cut()
    await publish(running, 3, 4, 5)
    await page.clock.run_for(7_500)
    assert await tab.next("silence") is True
    assert (await tab.next("stale"))["channel"] == BTC
    await page.clock.run_for(DEAD_MS - 7_500)
    change = await tab.state("waiting")
    assert (change["code"], change["reason"]) == (1006, "dead_link")
    await tab.wait_out(change)
    assert await values(tab, 3) == [3, 4, 5]
    await publish(running, 6)
    assert await values(tab, 1) == [6]


@pytest.mark.parametrize(
    ("follow", "granted"), [(BTC, [BTC]), (BTC, ["trades.>"]), ("trades.*", ["trades.>"])]
)
async def test_a_stream_goes_on_behind_a_lost_connection_without_a_loss(
    page: Page, running: Relay, link: Link, follow: str, granted: list[str], ways: Ways
) -> None:
    """Whether a channel was asked for by name or by pattern, and whatever the token subscribes to by itself."""
    url = f"ws://127.0.0.1:{link.port}/ws/trades"
    tab = await open_page(page, running, url=url, follow=follow, channels=granted, **ways)
    await tab.state("open")
    await publish(running, 1, 2)
    assert await values(tab, 2) == [1, 2]
    for number, fail in ((3, link.reset), (6, link.half_close)):
        fail()
        change = await tab.state("waiting")
        assert change["code"] == 1006
        await publish(running, number, number + 1)
        await tab.wait_out(change)
        assert await values(tab, 2) == [number, number + 1]
        await publish(running, number + 2)
        assert await values(tab, 1) == [number + 2]
        await page.clock.run_for(250)  # the next flush leaves what only the resume needed


async def test_more_than_the_history_keeps_is_a_gap_and_then_the_newest_value(
    page: Page, running: Relay, link: Link, ways: Ways
) -> None:
    """All that was missed or nothing, and the page is told which."""
    tab = await open_page(page, running, url=f"ws://127.0.0.1:{link.port}/ws/trades", **ways)
    await tab.state("open")
    await publish(running, 1)
    assert await values(tab, 1) == [1]
    link.reset()
    change = await tab.state("waiting")
    await publish(running, *range(2, 14))
    await tab.wait_out(change)
    gap = await tab.next("gap", "value")
    assert (gap["since"]["seq"], gap["seq"]) == (1, 13)
    assert await values(tab, 1) == [13]


async def test_the_relay_says_when_a_publisher_is_silent_and_when_it_is_back(
    page: Page, running: Relay, ways: Ways
) -> None:
    """By the server's clock; the page's stands still here."""
    tab = await open_page(page, running, **ways)
    await tab.state("open")
    await publish(running, 1)
    assert await tab.next("live", "stale") == {"channel": BTC, "state": "live"}
    assert await tab.next("live", "stale") == {"channel": BTC, "state": "stale"}
    await publish(running, 2)
    assert await tab.next("live", "stale") == {"channel": BTC, "state": "live"}


async def test_refreshes_carry_a_connection_past_its_first_end(page: Page, short_lived: Relay) -> None:
    """One socket, one welcome, and several tokens: the page sees no interruption."""
    tab = await open_page(page, short_lived)
    await page.clock.resume()
    expires_at = (await tab.next("welcome"))["expires_at"]
    while (await tab.next("refreshed", "state", "error"))["expires_at"] < expires_at + LIFE_S * 1000:
        pass  # the end that a refresh set before this one has passed
    await publish(short_lived, 1)
    assert await tab.next("value", "state", "error")
    assert await page.evaluate("stream.state") == "open"
    await short_lived.audited("connection.refreshed")
    actions = [record["event"]["action"] for record in short_lived.audit()]
    assert actions.count("connect.accepted") == 1


async def test_a_session_that_is_gone_ends_the_stream_at_the_connections_end(
    page: Page, short_lived: Relay, ways: Ways
) -> None:
    """Not before, because the relay did not close it; and without endless reconnects."""
    tab = await open_page(page, short_lived, **ways)
    await tab.state("open")
    await page.context.clear_cookies()
    await page.clock.resume()
    assert (await tab.next("error", "state"))["code"] == "not_refreshed"
    assert (await tab.next("error", "state"))["code"] == 4001
    assert (await tab.state("stopped"))["status"] == 401


async def test_a_used_token_is_refused_without_a_reason_and_then_with_one(page: Page, running: Relay) -> None:
    """Two refused upgrades look like lost links; over the first message the page sees the close code."""
    tab = await open_page(page, running, sameToken=True)
    await tab.state("open")
    await asyncio.to_thread(running.stop)
    await asyncio.to_thread(running.start)
    seen = []
    for _ in range(4):
        change = await tab.state("waiting")
        seen.append(change["code"])
        await tab.wait_out(change)
    assert seen == [1012, 1006, 1006, 3000]
    await page.evaluate("forget()")
    await come_back(tab)


async def test_a_stream_that_is_left_for_a_moment_begins_again_without_a_gap(
    page: Page, running: Relay, ways: Ways
) -> None:
    """The relay was told of both, and what was published between the two is part of the first snapshot."""
    tab = await open_page(page, running, **ways)
    await tab.state("open")
    await publish(running, 1, 2)
    assert await values(tab, 2) == [1, 2]
    await page.evaluate("leave()")
    await page.clock.run_for(1000)  # the client unsubscribes, or forgets the channel
    await publish(running, 3, 4)
    await page.evaluate("follow()")
    await page.clock.run_for(1500)
    assert await values(tab, 1) == [4]
    await publish(running, 5)
    assert await values(tab, 1) == [5]


async def test_a_slow_reader_gets_new_prices(page: Page, running: Relay) -> None:
    """It gets fewer values instead of old ones, and the newest one at the end."""
    tab = await open_page(page, running, endpoint="prices", follow=PRICE, workMs=WORK_MS)
    await tab.state("open")
    await check_that_values_are_skipped(running, lambda: tab.next("value"))


async def test_a_slow_reader_of_a_stream_gets_every_message_in_order(
    page: Page, running: Relay, ways: Ways
) -> None:
    """Nothing of a stream is skipped, however long the reader takes."""
    tab = await open_page(page, running, workMs=20, **ways)
    await tab.state("open")
    await publish(running, *range(40))
    assert await values(tab, 40) == list(range(40))


@pytest.mark.parametrize(("kind", "within_ms"), [("refuses", 5_000), ("drops", 10_000)])
async def test_prices_come_where_websockets_are_blocked(
    page: Page, running: Relay, tmp_path: Path, kind: str, within_ms: int
) -> None:
    """By the page's clock: two attempts without a WebSocket, then an event stream. A cut line resumes it."""
    async with AsyncExitStack() as stack:
        is_dropping, port = kind == "drops", running.ports[1]
        if not is_dropping:
            port = await stack.enter_async_context(refusing_upgrades(port, tmp_path))
        link = await stack.enter_async_context(linked(port, without_upgrades=is_dropping))
        await publish(running, 1)
        tab = await open_page(page, running, url=f"ws://127.0.0.1:{link.port}/ws/trades")
        waited = 0
        for _ in range(2):
            if is_dropping:
                async with asyncio.timeout(20):
                    await link.swallowed.get()
                await page.clock.run_for(3_000)
                waited += 3_000
            change = await tab.state("waiting")
            assert change["code"] == 1006
            waited += change["retryInMs"]
            await tab.wait_out(change)
        assert (await tab.state("open"))["transport"] == "sse"
        assert await page.evaluate("stream.transport") == "sse"
        assert await values(tab, 1) == [1]
        assert waited < within_ms
        link.reset()
        change = await tab.state("waiting")
        assert await page.evaluate("stream.transport") is None
        await publish(running, 2, 3)
        await tab.wait_out(change)
        assert await values(tab, 2) == [2, 3]
        await page.close()


async def test_an_event_streams_channels_change_without_an_interruption(page: Page, running: Relay) -> None:
    """The successor is open before the first one ends: nothing is lost, repeated or stale, and one stream stays."""
    tab = await open_page(page, running, transports=["sse"])
    first = await tab.state("open")
    await publish(running, 1)
    assert await values(tab, 1) == [1]
    tab.rest()
    await page.evaluate(
        """() => {
          const tell = (value) => report(['other', value]);
          for (const name of ['ETH-USD', 'SOL-USD'])
            stream.subscribe(`trades.${name}`, { onSnapshot: tell, onUpdate: tell });
        }"""
    )
    await publish(running, 2)
    await page.clock.run_for(1_000)
    await publish(running, 3, 4)
    second = await tab.state("open")
    assert second["connection"] != first["connection"]
    await publish(running, 7, channel="trades.ETH-USD")
    await publish(running, 8, channel="trades.SOL-USD")
    assert {(await tab.next("other"))["data"] for _ in range(2)} == {7, 8}
    await publish(running, 5)
    seen = [kind for kind in tab.rest() if kind in ("gap", "stale", "state", "error", "silence")]
    assert seen == []
    closed = await running.audited("connection.closed")
    assert closed["relay"]["connection"]["id"] == first["connection"]


async def test_an_event_stream_goes_on_past_its_first_end(page: Page, short_lived: Relay) -> None:
    """There is no refresh: a successor with a new token takes over, and the page sees no interruption."""
    tab = await open_page(page, short_lived, transports=["sse"])
    await page.clock.resume()
    await tab.state("open")
    await publish(short_lived, 1)
    assert await values(tab, 1) == [1]
    for number in (2, 3):
        assert (await tab.next("state", "gap"))["state"] == "open"
        await publish(short_lived, number)
        assert await values(tab, 1) == [number]
