"""How fresh the demo's page looks, while its relay stands still, is killed, and comes back; and who can use it."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.support.accessibility import WATCH_SHIFTS, violations
from tests.support.chromium import require_playwright
from tests.support.demo_process import Demo, running_demo

require_playwright()

from playwright.async_api import Browser, Page, expect  # noqa: E402  # after the check

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOAD_MS = 30_000
"""How long a busy machine may take for anything here; nothing is measured."""
SYMBOLS = 20
WINDOWS = [(390, 844), (768, 1024), (1440, 900)]
COLOURS = """() => {
  const style = getComputedStyle(document.documentElement);
  const muted = getComputedStyle(document.querySelector('#chart-window')).color;
  const accent = style.getPropertyValue('--accent').match(/[0-9a-f]{2}/g).map(hex => parseInt(hex, 16));
  const texts = [...document.querySelectorAll('#rows tr *, #quote, #quote *, #audit *')].filter(one =>
    one.checkVisibility() && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const canvas = document.querySelector('#chart');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let drawn = 0;
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] === 255 && accent.every((value, at) => data[i + at] === value)) drawn++;
  return [...texts.map(one => [one.textContent, getComputedStyle(one).color]).filter(([, colour]) => colour !== muted),
          ...(drawn ? [['pixels of the chart', drawn]] : [])];
}"""
"""What is shown in another colour than that of old things: texts of live sections, and the chart's line and tag."""
COMPARE = """
window.drawn = [];
const { clearRect, fillText } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.clearRect = function (...all) { drawn = []; clearRect.apply(this, all); };
CanvasRenderingContext2D.prototype.fillText = function (text, ...all) {
  drawn.push(text);
  fillText.call(this, text, ...all);
};
"""
"""A script for a page, before its own: `window.drawn` gets the texts of the chart as it is."""

expect.set_options(timeout=LOAD_MS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def demo() -> AsyncIterator[Demo]:
    """A demo of its own, whose relay the tests may end."""
    async with running_demo() as demo:
        yield demo


async def relay_process(demo: Demo) -> int:
    """The number of the relay's process."""
    _, first, later = await demo.said(r"^  restart +kill (\d+)$|^The relay runs again, as process (\d+)\.$")
    return int(first or later)


@asynccontextmanager
async def opened(browser: Browser, demo: Demo, width: int, height: int, scheme: Any) -> AsyncIterator[Page]:
    """The page in a window, logged in."""
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = await context.new_page()
    await page.add_init_script(WATCH_SHIFTS)
    await page.add_init_script(COMPARE)
    await log_in(page, demo)
    yield page
    await context.close()


async def log_in(page: Page, demo: Demo) -> None:
    """Fill in the form of a page that is not logged in."""
    await page.goto(demo.origin)
    await page.get_by_test_id("login-email").fill("demo@example.com")
    await page.get_by_test_id("login-password").fill("demo")
    await page.get_by_test_id("login-submit").click()


async def looks_fresh(page: Page) -> None:
    """All prices are live, and so are the headline, the chart and the numbers of the bar."""
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    await expect(page.locator("tr.stale")).to_have_count(0)
    await expect(page.locator("#chart-window")).to_contain_text("mid, last")
    await expect(page.locator("#m-rate")).not_to_have_text("\u2013")
    await expect(page.locator("#audit-note")).to_contain_text("newest first")
    await page.wait_for_function(
        f"() => ({COLOURS})().at(-1)?.[0] === 'pixels of the chart'", timeout=LOAD_MS
    )


async def looks_old(page: Page, state: str) -> None:
    """No price, headline, line, tag or number says how something is now."""
    await expect(page.get_by_test_id("conn-state")).to_have_text(re.compile(state))
    await expect(page.locator("tr.stale")).to_have_count(SYMBOLS)
    await expect(page.locator("#chart-window")).to_contain_text("stale, ")
    await expect(page.locator("#audit-note")).to_contain_text("as of ")
    for number in ("#m-rate", "#m-rtt"):
        await expect(page.locator(number)).to_have_text("\u2013")
    await expect(page.get_by_role("img", name=re.compile("stale, "))).to_be_visible()
    assert await page.evaluate(COLOURS) == []


async def test_nothing_looks_fresher_than_it_is(browser: Browser, demo: Demo) -> None:
    """At each width, in both schemes: a relay that stands still, its end, its return; nothing moves."""
    async with AsyncExitStack() as stack:
        pages = [
            await stack.enter_async_context(opened(browser, demo, *window, "light")) for window in WINDOWS
        ]
        for page in pages:
            await looks_fresh(page)
        process = await relay_process(demo)
        os.kill(process, signal.SIGSTOP)
        for page in pages:
            await looks_old(page, "silent|reconnecting|connecting")
            await page.emulate_media(color_scheme="dark")
            await looks_old(page, "silent|reconnecting|connecting")
        os.kill(process, signal.SIGKILL)
        for page, (width, _) in zip(pages, WINDOWS, strict=True):
            await looks_fresh(page)
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            shifts = await page.evaluate("shifts")
            assert max((value for value, *_ in shifts), default=0) < 0.005, (width, shifts)


async def test_headline_and_chart_show_one_price(browser: Browser, demo: Demo) -> None:
    """In each frame that a person could see."""
    async with opened(browser, demo, 1440, 900, "dark") as page:
        await looks_fresh(page)
        different = await page.evaluate(
            """async () => {
              const headline = document.querySelector('#chart-mid');
              const [seen, different] = [new Set(), []];
              while (seen.size < 12) {
                await new Promise(requestAnimationFrame);
                seen.add(headline.textContent);
                if (!drawn.includes(headline.textContent)) different.push([headline.textContent, drawn]);
              }
              return different;
            }"""
        )
        assert different == []


async def test_the_page_asks_for_no_token_without_a_session(browser: Browser, demo: Demo) -> None:
    """So the audit log begins with the log-in, not with a refusal that the page has caused itself."""
    context = await browser.new_context()
    page = await context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await page.goto(demo.origin)
    await expect(page.get_by_test_id("login-submit")).to_be_visible()
    await log_in(page, demo)
    await looks_fresh(page)
    await expect(page.get_by_test_id("audit-list")).to_contain_text("login.succeeded")
    assert "token.denied" not in await page.get_by_test_id("audit-list").inner_text()
    await page.reload()
    await looks_fresh(page)
    assert problems == []
    await context.close()


async def test_a_price_from_before_a_sleep_is_stale(page: Page, demo: Demo) -> None:
    """A page's clock may stand still while the computer sleeps: an hour-old price would look like a new one."""
    await page.goto(demo.origin)
    looks = await page.evaluate(
        """async () => {
          let [ran, wall] = [performance.now(), Date.now()];
          performance.now = () => ran;
          Date.now = () => wall;
          const { Freshness } = await import('/demo/freshness.js');
          const fresh = new Freshness();
          fresh.link = { state: 'open', since: 0 };
          const price = { stale: false, heard: ran };
          const looks = [];
          for (const [ran_ms, wall_ms] of [[100, 100], [100, 3_600_000], [100, 100]]) {
            ran += ran_ms;
            wall += wall_ms;
            fresh.look(ran);
            looks.push([fresh.price(price, 300), fresh.isOld(price.heard, 2000)]);
          }
          price.heard = ran;
          looks.push([fresh.price(price, 0), fresh.isOld(price.heard, 2000)]);
          return looks;
        }"""
    )
    assert looks == [["", False], ["stale", True], ["stale", True], ["", False]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong(browser: Browser, demo: Demo, axe: str, scheme: Any) -> None:
    """Names, roles, contrast and keyboard: at the log-in, with prices, after a replay, and after a log-out."""
    async with opened(browser, demo, 390, 844, scheme) as page:
        await looks_fresh(page)
        await page.get_by_test_id("replay-button").click()
        await expect(page.get_by_test_id("audit-list")).to_contain_text("token_replayed")
        assert not (found := await violations(page, axe)), "\n".join(found)
        await page.get_by_test_id("logout").click()
        await expect(page.locator("tr.stale")).to_have_count(SYMBOLS)
        assert not (found := await violations(page, axe)), "\n".join(found)
        await page.get_by_role("button", name="Log in again").click()
        await expect(page.get_by_test_id("login-submit")).to_be_visible()
        assert not (found := await violations(page, axe)), "\n".join(found)
