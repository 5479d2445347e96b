"""One Chromium and one `relay demo` for all browser tests, and a fresh profile for each of them.

Playwright's objects belong to the event loop that made them, so all of this lives on the session's loop.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support.accessibility import axe_script
from tests.support.chromium import ARGUMENTS, find_chromium, require_playwright
from tests.support.demo_process import running_demo
from tests.support.scripted_relay import ScriptedRelay, ScriptedSite, Tab, scripted_site

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator["Browser"]:
    """A headless Chromium."""
    require_playwright()
    from playwright.async_api import async_playwright

    path = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: "Browser") -> AsyncIterator["Page"]:
    """A page in a profile of its own."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    yield await context.new_page()
    await context.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo() -> AsyncIterator[str]:
    """The address of a running `relay demo`."""
    async with running_demo() as demo:
        yield demo.origin


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's script."""
    return axe_script()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site() -> AsyncIterator[ScriptedSite]:
    """The server of the scripted relays."""
    async with scripted_site() as site:
        yield site


@pytest.fixture
def relay(site: ScriptedSite, compression: bool) -> ScriptedRelay:  # the test runs in both ways
    """A relay that does what the test says."""
    return site.new_relay()


class _Shared:
    """The page of all tests with a scripted relay. A new page would cost half a second of CPU for each of them."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.tab = Tab(page=page)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_page(browser: "Browser") -> AsyncIterator[_Shared]:
    """A page whose clock is stopped in each document."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    shared = _Shared(await context.new_page())
    await shared.page.expose_function("report", lambda event: shared.tab.report(event))
    await shared.page.clock.install(time="2026-01-01T00:00:00Z")
    await shared.page.clock.pause_at("2026-01-01T01:00:00Z")
    yield shared
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tab(shared_page: _Shared, relay: ScriptedRelay) -> AsyncIterator[Tab]:
    """A new document of that relay's origin. Nothing of an earlier test is left in it."""
    shared_page.tab = tab = Tab(page=shared_page.page)
    await tab.page.goto(relay.origin + "/")
    yield tab
    await tab.page.unroute_all(behavior="ignoreErrors")
    await tab.page.context.unroute_all(behavior="ignoreErrors")
