"""examples/react as a user builds it: npm install, the development server and the production build, in Chromium.

Vite serves the page and forwards log-in and tokens to a real relay, whose backend rotates its refresh tokens.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.support.accessibility import in_both_schemes
from tests.support.chromium import require_playwright
from tests.support.npm_package import EXAMPLE, PACKAGE, installed
from tests.support.ports import free_ports
from tests.support.relay_process import Relay, make_relay
from tests.support.rotating_backend import rotating_backend

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=30_000)

BTC = 'tr[data-symbol="BTC-USD"]'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, with the link that npm makes to the package of a checkout; the others are above it."""
    folder = tmp_path_factory.mktemp("react-example")
    without = shutil.ignore_patterns("node_modules", "dist")
    project = shutil.copytree(EXAMPLE, folder / "examples" / "react", ignore=without)
    (folder / "node_modules").symlink_to(installed() / "node_modules")
    package = shutil.copytree(PACKAGE, folder / "relay" / "browser", ignore=without)
    shutil.copytree(PACKAGE / "dist", package / "dist")
    (project / "node_modules").mkdir()
    (project / "node_modules" / "scoped-relay").symlink_to(package)
    return project


@asynccontextmanager
async def vite(project: Path, relay: Relay, port: int, *command: str) -> AsyncIterator[str]:
    """Run a command of Vite that serves the page; yields its address."""
    program = str(installed() / "node_modules" / ".bin" / "vite")
    process = await asyncio.create_subprocess_exec(
        *(program, *command, "--port", str(port)),
        cwd=project,
        env={**os.environ, "RELAY_URL": relay.url, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"Local:" not in (line := await process.stdout.readline()):
                assert line, f"vite {command} has ended"
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        await process.communicate()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Relay, int]]:
    """A running relay with a backend, and the port of the page that it knows."""
    backend_port, page_port = free_ports(2)
    relay = make_relay(tmp_path_factory.mktemp("relay"), bff=f'backend = "http://127.0.0.1:{backend_port}"')
    for name in ("PUBLIC__ALLOWED_ORIGINS", "CSRF__TRUSTED_ORIGINS"):
        relay.environment[f"RELAY_{name}"] = f'["http://localhost:{page_port}"]'
    async with rotating_backend(backend_port):
        await asyncio.to_thread(relay.start)
        yield relay, page_port
        await asyncio.to_thread(relay.stop)


async def publish(relay: Relay, bid: str) -> None:
    """Publish one quote for each symbol of the page."""
    for symbol in ("BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD"):
        answer = await relay.publish(f"prices.{symbol}", {"bid": bid, "ask": "999"})
        assert answer.status_code == 200


async def log_in(page: Page) -> None:
    """Fill in the form."""
    await page.get_by_label("E-mail").fill("user-1@example.com")
    await page.get_by_label("Password").fill("p")
    await page.get_by_role("button", name="Log in").click()


async def restart(relay: Relay) -> None:
    """Stop the relay, and start it again on the same ports."""
    await asyncio.to_thread(relay.stop)
    await asyncio.to_thread(relay.start)


async def test_the_development_server_shows_live_prices(
    browser: Browser, project: Path, served: tuple[Relay, int]
) -> None:
    """`npm run dev`: log-in through the proxy, prices from the relay, in StrictMode."""
    relay, port = served
    context = await browser.new_context()
    async with vite(project, relay, port) as url:
        page = await context.new_page()
        await page.goto(url)
        await log_in(page)
        await expect(page.get_by_role("status")).to_have_text("Live")
        await publish(relay, "100")
        await expect(page.locator(BTC)).to_contain_text("100")
        await context.close()


async def test_the_production_build_lives_through_a_working_day(
    browser: Browser, project: Path, served: tuple[Relay, int], axe: str
) -> None:
    """A restart of the relay, an access token that is over, a log-in that is over, a log-out in another tab.

    Axe finds nothing wrong with prices, with old prices, and at the log-in.
    """
    relay, port = served
    npm = shutil.which("npm") or "npm"
    built = await asyncio.to_thread(
        subprocess.run, [npm, "run", "build"], cwd=project, capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stdout + built.stderr
    context = await browser.new_context()
    complaints: list[str] = []
    async with vite(project, relay, port, "preview") as url:
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(url)
        await log_in(page)
        state = page.get_by_role("status")
        await expect(state).to_have_text("Live")
        await publish(relay, "101")
        await expect(page.locator(BTC)).to_contain_text("101")
        await expect(page.locator(BTC)).not_to_contain_text("stale")
        await expect(page.locator("figure canvas").first).to_be_visible()
        assert await in_both_schemes(page, axe) == []

        # the relay restarts: the old prices stay, marked, until new ones come
        await asyncio.to_thread(relay.stop)
        await expect(state).to_have_text(re.compile("lost|Connecting"))
        await expect(page.locator(BTC)).to_contain_text("101")
        await expect(page.locator(BTC)).to_contain_text("stale")
        assert await in_both_schemes(page, axe) == []
        await asyncio.to_thread(relay.start)
        await expect(state).to_have_text("Live")
        await publish(relay, "102")
        await expect(page.locator(BTC)).to_contain_text("102")
        await expect(page.locator(BTC)).not_to_contain_text("stale")

        # the access token is over: the refresh cookie renews the session, and the user sees nothing of it
        await context.clear_cookies(name="access-token")
        await restart(relay)
        await publish(relay, "103")
        await expect(page.locator(BTC)).to_contain_text("103")

        # the log-in is over: nothing can renew it
        await context.clear_cookies()
        await restart(relay)
        await expect(page.get_by_text("Your session has ended.")).to_be_visible()
        assert await in_both_schemes(page, axe) == []
        await log_in(page)
        await publish(relay, "104")
        await expect(page.locator(BTC)).to_contain_text("104")

        # a log-out in another tab
        other = await context.new_page()
        await other.goto(url)
        await expect(other.get_by_role("status")).to_have_text("Live")
        await other.get_by_role("button", name="Log out").click()
        for each in (page, other):
            await expect(each.get_by_role("heading", name="Log in")).to_be_visible()
        await context.close()
    assert complaints == []
