"""The React steps of the client's README, taken out of it and done in an empty folder; then a day of that page.

The ports of the README are replaced by free ones. `npm create` asks the registry: skipped where there is none.
"""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page, Request, expect

from tests.support.chromium import missing, require_playwright
from tests.support.demo_process import started_demo
from tests.support.npm_package import PACKAGE, installed, pack
from tests.support.ports import free_ports
from tests.support.readme import read

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_MS = 30_000
ENVIRONMENT = {
    **os.environ,
    "npm_config_prefer_offline": "true",
    "npm_config_audit": "false",
    "npm_config_fetch_retries": "0",
    "NO_COLOR": "1",
}
_OTHER_ORIGIN = """
async ([client, issuer, transport]) => {
  const { createStream, fetchToken } = await import(client);
  const stream = createStream({ getToken: fetchToken({ path: `${issuer}/auth/ws-token` }), transports: [transport] });
  try {
    return await new Promise((resolve, reject) => {
      stream.on('state', ({ state, reason }) => state === 'stopped' && reject(Error(reason)));
      stream.subscribe('prices.BTC-USD', { onUpdate: ({ channel }) => resolve([channel, stream.transport]) });
    });
  } finally {
    stream.close();
  }
}
"""


@dataclass(frozen=True, slots=True)
class Steps:
    """What the README says: commands, and files by their path."""

    commands: list[str]
    files: dict[str, str]


def steps() -> Steps:
    """Read the steps out of the README."""
    blocks = read(PACKAGE / "README.md").blocks
    (commands,) = [block.text.splitlines() for block in blocks if "npm create" in block.text]
    named = [(re.match(r"// (\S+\.tsx?)\n", block.text), block.text) for block in blocks]
    return Steps(commands=commands, files={match[1]: text for match, text in named if match})


@dataclass(frozen=True, slots=True)
class Served:
    """The page's development server, and the demo beside it."""

    page: str
    relay: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Do the steps, and start what they start."""
    installed()  # npm is there
    folder = tmp_path_factory.mktemp("readme")
    (port,) = free_ports(1)
    page = f"http://localhost:{port}"
    async with started_demo("--origin", page) as demo:
        relay = next(url for url in re.findall(r"http://localhost:\d+", demo.output) if url != page)
        project = await asyncio.to_thread(_do, folder, relay, port)
        vite = await asyncio.create_subprocess_exec(
            *("node", "node_modules/vite/bin/vite.js"),
            cwd=project,
            env=ENVIRONMENT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            assert vite.stdout is not None
            async with asyncio.timeout(60):
                while b"Local:" not in (line := await vite.stdout.readline()):
                    assert line, "vite has ended"
            yield Served(page, relay)
        finally:
            vite.terminate()
            await vite.communicate()


def _do(folder: Path, relay: str, port: int) -> Path:
    found = steps()
    place = folder
    for command in found.commands:
        if command.startswith("cd "):
            place /= command.removeprefix("cd ")
            continue
        command = re.sub(r"/tmp/scoped-relay-\S+", lambda _: str(pack(folder)), command)
        done = subprocess.run(
            command, shell=True, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
        )
        if done.returncode:
            missing(f"{command} failed: {done.stderr.strip()[-300:]}")
    assert found.files.keys() == {"src/App.tsx", "vite.config.ts"}
    for name, text in found.files.items():
        assert (place / name).exists(), f"Vite's template has no {name} any more"
        (place / name).write_text(
            text.replace("http://localhost:8000", relay).replace("port: 5173", f"port: {port}")
        )
    return place


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser, served: Served) -> AsyncIterator[BrowserContext]:
    """A browser that has logged in where the README says."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(served.relay)
    await page.get_by_label("E-mail").fill("demo@example.com")
    await page.get_by_label("Password").fill("demo")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_test_id("logout")).to_be_visible(timeout=PATIENCE_MS)
    await page.close()
    yield context
    await context.close()


def rows(page: Page) -> Locator:
    """Return the lines of the page."""
    return page.locator("li")


async def opened(page: Page) -> None:
    """Wait until the page shows a price that is not stale."""
    await expect(rows(page).last).to_have_text("open", timeout=PATIENCE_MS)
    await expect(page.locator("ul")).to_have_css("opacity", "1", timeout=PATIENCE_MS)
    await expect(rows(page).first).to_have_text(re.compile(r"BTC-USD \d"), timeout=PATIENCE_MS)


async def test_the_steps_end_with_live_prices(context: BrowserContext, served: Served) -> None:
    """From an empty folder to prices that move, without a complaint of the page."""
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(served.page)
    await opened(page)
    await expect(rows(page).first).not_to_have_text(await rows(page).first.inner_text(), timeout=PATIENCE_MS)
    assert complaints == []


async def test_a_laptop_that_slept_for_an_hour_goes_on(context: BrowserContext, served: Served) -> None:
    """Its clocks jump and its timers were asleep: the session is renewed at once, and prices are live again."""
    page = await context.new_page()
    await page.clock.install()
    await page.goto(served.page)
    await opened(page)

    def renews(request: Request) -> bool:
        return request.url.endswith("/api/auth/refresh")

    async with page.expect_request(renews, timeout=PATIENCE_MS):
        await page.clock.fast_forward(3_600_000)
    await opened(page)


async def test_a_frozen_tab_goes_on_when_it_is_thawed(context: BrowserContext, served: Served) -> None:
    """While it is frozen nothing runs in it. Then it shows what is current."""
    page, other = await context.new_page(), await context.new_page()
    await page.goto(served.page)
    await opened(page)
    debugger = await context.new_cdp_session(page)
    await debugger.send("Page.setWebLifecycleState", {"state": "frozen"})
    await other.goto(served.page)
    await opened(other)
    first = rows(other).first
    for _ in range(3):  # the market goes on
        await expect(first).not_to_have_text(await first.inner_text(), timeout=PATIENCE_MS)
    await debugger.send("Page.setWebLifecycleState", {"state": "active"})
    await page.bring_to_front()
    await opened(page)
    old = await rows(page).first.inner_text()
    await expect(rows(page).first).not_to_have_text(old, timeout=PATIENCE_MS)


@pytest.mark.parametrize(("transport", "carrier"), [("subprotocol", "websocket"), ("sse", "sse")])
async def test_a_page_of_another_origin_has_prices_without_a_proxy(
    context: BrowserContext, served: Served, transport: str, carrier: str
) -> None:
    """The issuer's URL in the client, and the origin in the relay's list: cookies go along, over both transports."""
    page = await context.new_page()
    await page.goto(served.page)
    client = "/node_modules/scoped-relay/src/relay-client.js"
    async with asyncio.timeout(60):
        found = await page.evaluate(_OTHER_ORIGIN, [client, served.relay, transport])
    assert found == ["prices.BTC-USD", carrier]
