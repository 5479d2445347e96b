"""How fresh the ops page looks, while its relay is killed and started again; and whether everybody can use it."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.support.accessibility import WATCH_SHIFTS, violations
from tests.support.chromium import require_playwright
from tests.support.operators import OPERATORS, OPS
from tests.support.relay_process import Relay, running

require_playwright()

from playwright.async_api import Browser, Page, Route, expect  # noqa: E402  # after the check

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOAD_MS = 30_000
"""How long a busy machine may take for anything here; nothing is measured."""
WINDOWS = [(390, 844), (768, 1024), (1440, 900)]
COLOURS = """() => {
  const muted = getComputedStyle(document.querySelector('#node')).color;
  const texts = [...document.querySelectorAll('[data-live] *')].filter(one => one.checkVisibility()
    && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()) && !one.closest('select, dialog'));
  const strokes = [...document.querySelectorAll('[data-live] .stroke')];
  return [...texts.map(one => [one.textContent, getComputedStyle(one).color]),
          ...strokes.map(one => ['line', getComputedStyle(one).stroke])].filter(([, colour]) => colour !== muted);
}"""
"""The texts and lines of live sections that have another colour than what is known to be old."""

expect.set_options(timeout=LOAD_MS)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of its own, which a test may kill if it starts it again."""
    with running(tmp_path_factory.mktemp("relay"), extra=OPERATORS) as relay:
        yield relay


@asynccontextmanager
async def opened(browser: Browser, relay: Relay, width: int, height: int) -> AsyncIterator[Page]:
    """The page in a light window, with the operator's key."""
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme="light")
    page = await context.new_page()
    await page.goto(f"{relay.internal_url}/ops")
    await page.get_by_test_id("key").fill(OPS)
    await page.get_by_test_id("enter").click()
    yield page
    await context.close()


async def looks_fresh(page: Page) -> None:
    """All words say how things are, and a session can be ended."""
    await expect(page.get_by_test_id("state")).to_have_text("live")
    await expect(page.locator("#tiles")).to_contain_text("complete")
    await expect(page.get_by_test_id("channels").locator("[data-word]")).to_have_text(
        re.compile("^(live|stale)$")
    )
    await expect(page.get_by_role("button", name="End session of")).to_be_enabled()
    await expect(page.locator("[data-stale=true]")).to_have_count(0)
    await expect(page.locator("[data-word]", has_text="was ")).to_have_count(0)
    assert await page.evaluate(COLOURS) != []


async def looks_old(page: Page) -> None:
    """Nothing says how something is now, or offers to change it."""
    await expect(page.get_by_test_id("state")).to_have_text("no answer")
    await expect(page.locator("#node")).to_contain_text("as of ")
    await expect(page.locator("#tiles")).to_contain_text("was complete")
    await expect(page.get_by_test_id("channels").locator("[data-word]")).to_have_text(
        re.compile("^was (live|stale)$")
    )
    for button in await page.get_by_role("button", name="End session of").all():
        await expect(button).to_be_disabled()
    for value in await page.locator(".chart b").all():
        await expect(value).to_have_text("\u2013")
    assert await page.evaluate(COLOURS) == []


async def test_nothing_looks_fresher_than_the_last_answer(browser: Browser, relay: Relay) -> None:
    """At each width and in both schemes: a killed relay is seen at once, and so is its return; nothing moves."""
    async with AsyncExitStack() as stack:
        await relay.publish("prices.A", 1)
        await stack.enter_async_context(relay.connect())
        pages = [await stack.enter_async_context(opened(browser, relay, *window)) for window in WINDOWS]
        for page in pages:
            await looks_fresh(page)
            await page.evaluate(WATCH_SHIFTS.replace("buffered: true", "buffered: false"))
        asking, *_ = pages
        await asking.get_by_role("button", name="End session of").click()
        button = asking.get_by_test_id("cut-yes")
        await expect(button).to_be_enabled()
        place = await button.bounding_box()

        relay.kill()
        await expect(button).to_be_disabled()
        await expect(asking.get_by_text("The relay does not answer, so no session")).to_be_visible()
        assert await button.bounding_box() == place
        await asking.keyboard.press("Escape")
        for page in pages:
            await looks_old(page)
            await page.emulate_media(color_scheme="dark")
            await looks_old(page)
            ages = page.get_by_test_id("channels").locator("td").nth(1)
            shown = await ages.text_content()
            await expect(ages).not_to_have_text(shown or "")  # the value gets older though nobody asks

        relay.start()
        await relay.publish("prices.A", 2)
        await stack.enter_async_context(relay.connect())
        for page, (width, _) in zip(pages, WINDOWS, strict=True):
            await looks_fresh(page)
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            # a table that has other rows may have another height; all else stays where it was
            shifts = await page.evaluate("shifts")
            assert max((value for value, *_ in shifts), default=0) < 0.05, shifts


async def test_a_section_that_the_last_answers_left_out_is_old_alone(page: Page, relay: Relay) -> None:
    """A pattern that is not complete yet gets no answer; the table below it is that of the pattern before."""
    await relay.publish("prices.A", 1)
    await page.goto(f"{relay.internal_url}/ops")
    await page.get_by_test_id("key").fill(OPS)
    await page.get_by_test_id("enter").click()
    row = page.get_by_test_id("channels").locator("tr")
    await expect(row).to_contain_text("live")
    await page.get_by_test_id("match").fill("prices.>.")
    await page.keyboard.press("Enter")
    await expect(row).to_contain_text("was live")
    await expect(page.get_by_test_id("state")).to_have_text("live")
    await expect(page.locator("[data-stale=true]")).to_have_count(1)
    await page.get_by_test_id("match").fill("prices.>")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-stale=true]")).to_have_count(0)


async def test_a_tab_that_was_hidden_looks_old_until_the_first_answer(page: Page, relay: Relay) -> None:
    """It asked nothing while it was hidden, so it does not say that the relay gave no answer."""
    await relay.publish("prices.A", 1)
    await page.goto(f"{relay.internal_url}/ops")
    await page.get_by_test_id("key").fill(OPS)
    await page.get_by_test_id("enter").click()
    await expect(page.get_by_test_id("channels").locator("[data-word]")).to_have_text("live")
    answers = asyncio.Event()

    async def hold(route: Route) -> None:
        await answers.wait()
        await route.continue_()

    await page.route("**/v1/**", hold)
    await page.evaluate(
        """() => {
          const { now } = Date;
          Date.now = () => now() + 60_000;
          document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    await expect(page.get_by_test_id("state")).to_have_text("asking")
    await expect(page.get_by_test_id("channels").locator("[data-word]")).to_have_text(re.compile("^was "))
    answers.set()
    await expect(page.get_by_test_id("state")).to_have_text("live")
    await page.unroute_all(behavior="wait")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong(browser: Browser, relay: Relay, axe: str, scheme: str) -> None:
    """Names, roles, contrast and keyboard: at the log-in, with data, in both dialogs, and with old data."""
    context = await browser.new_context(viewport={"width": 390, "height": 844})
    page = await context.new_page()
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.goto(f"{relay.internal_url}/ops")
    assert not (found := await violations(page, axe)), "\n".join(found)
    await relay.publish("prices.A", 1)
    async with relay.connect():
        await page.get_by_test_id("key").fill(OPS)
        await page.get_by_test_id("enter").click()
        await looks_fresh(page)
        assert not (found := await violations(page, axe)), "\n".join(found)
        await page.get_by_role("button", name="End session of").click()
        assert not (found := await violations(page, axe)), "\n".join(found)
        await page.keyboard.press("Escape")
        await page.get_by_test_id("connections").get_by_role("button", name="user-1", exact=True).click()
        await expect(page.get_by_test_id("timeline")).to_contain_text("token was used up")
        assert not (found := await violations(page, axe)), "\n".join(found)
        await page.keyboard.press("Escape")
        relay.kill()
        await looks_old(page)
        assert not (found := await violations(page, axe)), "\n".join(found)
    await context.close()
    relay.start()
