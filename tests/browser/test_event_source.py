"""The browser's own EventSource, without a line of the relay's client, resumes a `stream` endpoint by its last id."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser

from tests.support.chromium import require_playwright
from tests.support.real_relay_page import BTC, publish
from tests.support.relay_process import Relay, make_relay
from tests.support.tcp_proxies import linked

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

MORE_THAN_KEPT = 12
FOLLOW = """
(url) => {
  window.source?.close();
  window.source = new EventSource(url);
  window.source.onmessage = ({ data, lastEventId }) => window.report({ id: lastEventId, ...JSON.parse(data) });
  window.source.onerror = () => window.report({ type: 'lost' });
}
"""


async def test_an_event_source_goes_on_where_it_was(browser: Browser, tmp_path: Path) -> None:
    """By itself, if something between gives it a new token; or as a new one, with the id in its URL.

    Nothing is lost or repeated, and a gap is told where the history does not reach back.
    """
    relay: Relay = make_relay(tmp_path)
    await asyncio.to_thread(relay.start)
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    names = {"channels": f"{BTC},trades.ETH-USD"}

    async def token() -> str:
        return await relay.token(endpoint="trades")

    async def numbers(count: int) -> list[Any]:
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                event = await events.get()
                if event["type"] in ("snapshot", "update"):
                    found.append(event["data"])
                    last_id.append(str(event["id"]))
        return found

    async def told(kind: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while (event := await events.get())["type"] != kind:
                pass
        return event

    last_id: list[str] = []
    context = await browser.new_context(bypass_csp=True)
    page = await context.new_page()
    await page.expose_function("report", events.put_nowait)
    await page.goto(relay.url + "/client/relay-client.js")
    try:
        async with linked(relay.ports[1], new_token=token) as link:
            await page.evaluate(FOLLOW, f"http://127.0.0.1:{link.port}/ws/trades?{urlencode(names)}")
            await told("subscribed")
            await publish(relay, 1, 2)
            assert await numbers(2) == [1, 2]
            link.reset()
            await told("lost")
            await publish(relay, 3, 4)
            await publish(relay, 5, channel="trades.ETH-USD")
            assert sorted(await numbers(3), key=str) == [3, 4, 5]
            await publish(relay, 6)
            assert await numbers(1) == [6]
        async with linked(relay.ports[1]) as link:
            for count in (3, MORE_THAN_KEPT):
                await told("lost")
                await publish(relay, *range(count))
                query = names | {"token": await token(), "last_event_id": last_id[-1]}
                await page.evaluate(FOLLOW, f"http://127.0.0.1:{link.port}/ws/trades?{urlencode(query)}")
                ack = await told("subscribed")
                assert [each["recovered"] for each in ack["channels"]] == [count == 3, True]
                assert await numbers(3 if count == 3 else 1) == ([0, 1, 2] if count == 3 else [count - 1])
                link.reset()
        await context.close()
    finally:
        await asyncio.to_thread(relay.stop)
