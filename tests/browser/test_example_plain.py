"""examples/plain/index.html in Chromium, at the origin of a real relay."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.support.accessibility import in_both_schemes
from tests.support.chromium import require_playwright
from tests.support.ports import free_ports
from tests.support.relay_process import Relay, make_relay
from tests.support.rotating_backend import rotating_backend

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=30_000)

PAGE = Path(__file__).parents[2] / "examples" / "plain" / "index.html"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relay]:
    """A running relay with a backend."""
    [port] = free_ports(1)
    folder = tmp_path_factory.mktemp("relay")
    relay = make_relay(folder, history=100, bff=f'backend = "http://127.0.0.1:{port}"')
    async with rotating_backend(port):
        relay.start()
        yield relay
        relay.stop()


async def opened(browser: Browser, relay: Relay, html: str) -> Page:
    """Return the page at the relay's origin, logged in. Its list `shown` has each text of a row, in order."""
    page = await (await browser.new_context(bypass_csp=True)).new_page()
    # any answer makes a page of this origin
    await page.goto(relay.url + "/client/relay-client.js")
    await page.set_content(
        html.replace("row(channel).cells[1]", "(window.shown ??= []).push(data.bid); row(channel).cells[1]")
    )
    await expect(page.get_by_role("status")).to_have_text("Log in.")
    await page.get_by_label("E-mail").fill("user-1@example.com")
    await page.get_by_label("Password").fill("p")
    await page.get_by_role("button", name="Log in").click()
    return page


async def test_a_page_without_a_build_has_prices_over_both_transports(
    browser: Browser, relay: Relay, axe: str
) -> None:
    """Log-in, a price over each transport, and the end of both by a log-out. Axe finds nothing wrong."""
    page = await opened(browser, relay, PAGE.read_text())
    state, row = page.get_by_role("status"), page.get_by_role("row", name="BTC-USD")
    for number, transport in enumerate(("WebSocket", "EventSource", "WebSocket", "EventSource")):
        await page.get_by_label("Transport").select_option(transport)
        await expect(state).to_have_text("Live")
        for bid in (f"{number}.25", f"{number}.50"):
            assert (await relay.publish("prices.BTC-USD", {"bid": bid})).status_code == 200
            await expect(row).to_contain_text(bid)
    assert await in_both_schemes(page, axe) == []
    await page.get_by_role("button", name="Log out").click()
    await expect(state).to_have_text("Log in.")
    assert await in_both_schemes(page, axe) == []  # with old prices
    await page.context.close()
    await relay.audited("logout")  # then the records before it are written
    accepted = [record for record in relay.audit() if record["event"]["action"] == "connect.accepted"]
    assert {record["relay"]["token"]["transport"] for record in accepted} == {"subprotocol", "sse"}


@pytest.mark.parametrize("transport", ["WebSocket", "EventSource"])
async def test_a_page_without_a_build_resumes_a_stream(
    browser: Browser, relay: Relay, transport: str
) -> None:
    """The page of a `stream` endpoint gets what it missed while it had no connection, and nothing twice."""
    text = PAGE.read_text().replace("'prices.", "'trades.").replace("name = 'prices'", "name = 'trades'")
    page = await opened(browser, relay, text)
    await page.get_by_label("Transport").select_option(transport)
    await expect(page.get_by_role("status")).to_have_text("Live")
    number = 0
    for _ in range(3):
        await relay.publish("trades.BTC-USD", {"bid": f"{transport} {number}"})
        await expect(page.get_by_role("row", name="BTC-USD")).to_contain_text(f"{transport} {number}")
        await page.route("**/auth/ws-token", lambda route: route.abort())
        await page.get_by_label("Transport").dispatch_event("change")  # which connects again
        await expect(page.get_by_role("status")).to_have_text("No token.")
        for _ in range(3):
            number += 1
            await relay.publish("trades.BTC-USD", {"bid": f"{transport} {number}"})
        await page.unroute("**/auth/ws-token")
        await expect(page.get_by_role("row", name="BTC-USD")).to_contain_text(f"{transport} {number}")
        number += 1
    shown = [text for text in await page.evaluate("shown") if text.startswith(transport)]
    assert shown == [f"{transport} {count}" for count in range(number)]
    await page.context.close()
