"""examples/plain/index.html in Chromium, at the origin of a real relay."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.support.accessibility import in_both_schemes
from tests.support.chromium import require_playwright
from tests.support.ports import free_ports
from tests.support.relay_process import Relay, make_relay
from tests.support.rotating_backend import rotating_backend

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=30_000)

PAGE = Path(__file__).parents[2] / "examples" / "plain" / "index.html"


@pytest_asyncio.fixture(loop_scope="session")
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    """A running relay with a backend."""
    [port] = free_ports(1)
    relay = make_relay(tmp_path, bff=f'backend = "http://127.0.0.1:{port}"')
    async with rotating_backend(port):
        relay.start()
        yield relay
        relay.stop()


async def test_a_page_without_a_build_has_prices_over_both_transports(
    browser: Browser, relay: Relay, axe: str
) -> None:
    """Log-in, a price over each transport, and the end of both by a log-out. Axe finds nothing wrong."""
    context = await browser.new_context(bypass_csp=True)
    page = await context.new_page()
    # any answer makes a page of this origin
    await page.goto(relay.url + "/client/relay-client.js")
    await page.set_content(PAGE.read_text())
    state, row = page.get_by_role("status"), page.get_by_role("row", name="BTC-USD")
    await expect(state).to_have_text("Log in.")
    await page.get_by_label("E-mail").fill("user-1@example.com")
    await page.get_by_label("Password").fill("p")
    await page.get_by_role("button", name="Log in").click()
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
    await context.close()
    await asyncio.to_thread(relay.stop)  # then all records are written
    accepted = [record for record in relay.audit() if record["event"]["action"] == "connect.accepted"]
    assert {record["relay"]["token"]["transport"] for record in accepted} == {"subprotocol", "sse"}
