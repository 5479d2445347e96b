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
from tests.support.scripted_relay import ScriptedRelay, Tab, scripted_relay

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


@pytest_asyncio.fixture(loop_scope="session")
async def relay() -> AsyncIterator[ScriptedRelay]:
    """A relay that does what the test says."""
    async with scripted_relay() as relay:
        yield relay


@pytest_asyncio.fixture(loop_scope="session")
async def tab(page: "Page", relay: ScriptedRelay) -> AsyncIterator[Tab]:
    """A page of that relay's origin, its clock stopped; closed before the relay is.

    A client that connects while asyncio closes its server leaves a transport that nobody owns (CPython 3.11).
    """
    tab = Tab(page=page)
    await tab.open(relay)
    yield tab
    await page.close()
