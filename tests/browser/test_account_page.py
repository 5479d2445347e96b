"""The demo's account page in a real Chromium: a call through the API proxy, and what the page shows of its way."""

import re
from contextlib import suppress
from typing import Any

import pytest

from tests.support.accessibility import WATCH_SHIFTS, violations
from tests.support.chromium import require_playwright

require_playwright()

from playwright.async_api import Browser, Error, Page, Response, expect  # noqa: E402  # after the check

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOAD_MS = 30_000
WINDOWS = [(390, 844), (768, 1024), (1440, 900)]
REMOVED = "nationalId, accounts.*.internalScore"

expect.set_options(timeout=LOAD_MS)


async def open_account(page: Page, origin: str) -> None:
    """Ask for the page without a session, log in, and wait until it has read the account."""
    await page.goto(f"{origin}/account")
    await page.get_by_test_id("login-email").fill("demo@example.com")
    await page.get_by_test_id("login-password").fill("demo")
    await page.get_by_test_id("login-submit").click()
    await page.wait_for_url(f"{origin}/account", timeout=LOAD_MS)
    await has_read(page)


async def has_read(page: Page) -> None:
    """Wait until the page shows the account."""
    await expect(page.get_by_test_id("person")).to_contain_text("Demo Trader")
    await expect(page.get_by_test_id("removed")).to_have_text(REMOVED)


async def access_token(page: Page) -> str:
    """The fingerprint of the access token that the backend got last."""
    text = await page.get_by_test_id("bearer").inner_text()
    match = re.search(r"Bearer, access token ([0-9a-f]{12})", text)
    assert match, text
    return match[1]


async def drop(page: Page, *names: str) -> None:
    """Let cookies end, as the browser does when their time is over."""
    for name in names:
        await page.context.clear_cookies(name=name)


async def test_the_page_shows_what_the_relay_made_of_its_call(page: Page, demo: str) -> None:
    """Cookie in, Bearer out, fields removed, a token refreshed; and no token in anything that the page gets."""
    bodies: list[str] = []
    problems: list[str] = []
    tokens: set[str] = set()

    async def keep(response: Response) -> None:
        if response.status not in (204, 304, 307):
            with suppress(Error):  # of the page that was left; test_page.py reads what the log-in page gets
                bodies.append((await response.body()).decode(errors="replace"))

    async def know_tokens() -> None:
        cookies = await page.context.cookies()
        assert all(cookie["httpOnly"] for cookie in cookies)
        tokens.update(cookie["value"] for cookie in cookies)

    page.on("response", keep)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await open_account(page, demo)
    await know_tokens()
    await expect(page.get_by_test_id("user")).to_have_text("Demo Trader")
    await expect(page.get_by_test_id("bearer")).to_contain_text("none came through")
    await expect(page.get_by_test_id("fields")).to_contain_text("accounts.*.balance")
    await expect(page.get_by_test_id("balances")).to_contain_text("25130.40")
    journal = page.get_by_test_id("journal")
    await expect(journal).to_contain_text("GET /auth/me 200")
    await expect(page.get_by_test_id("refreshes")).to_have_text("not yet")

    first = await access_token(page)
    await page.get_by_test_id("renew").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("state")).to_contain_text("Renewed at")
    await expect(journal).to_contain_text("POST /auth/refresh 200")
    second = await access_token(page)
    assert second != first
    await expect(page.get_by_test_id("refresh")).to_contain_text(second)
    await know_tokens()

    await drop(page, "access-token")
    await page.get_by_test_id("read").click()
    await expect(page.get_by_test_id("bearer")).not_to_contain_text(second)
    await know_tokens()
    await drop(page, "access-token")
    await page.reload()  # the refresh cookie alone is a session
    await has_read(page)
    await know_tokens()

    assert len(tokens) >= 6
    readable: list[str] = await page.evaluate(
        """async () => [document.cookie, JSON.stringify({ ...localStorage }), JSON.stringify({ ...sessionStorage }),
             JSON.stringify(await cookieStore.getAll()), document.documentElement.outerHTML, location.href]"""
    )
    assert len(bodies) > 10
    for token in tokens:
        for part in (token, token.split(".")[-1]):
            assert not [text[:80] for text in (*readable, *bodies) if part in text]
    assert not [text for text in bodies if "DEMO-000" in text or "712," in text]
    assert problems == []


async def test_a_log_out_leaves_no_account_to_go_back_to(page: Page, demo: str) -> None:
    """The back button asks again, and so does a page whose session has ended in the meantime."""
    await open_account(page, demo)
    await page.get_by_test_id("logout").click()
    await expect(page.get_by_test_id("login-submit")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_test_id("login-submit")).to_be_visible()
    await expect(page.get_by_test_id("person")).to_have_count(0)
    await open_account(page, demo)
    await drop(page, "access-token", "refresh-token")
    await page.get_by_test_id("read").click()
    await expect(page.get_by_test_id("login-submit")).to_be_visible()
    await expect(page).to_have_url(f"{demo}/?returnTo=/account")


@pytest.mark.parametrize("wanted", ["https://evil.example", "//evil.example", "/account/..", "/demo/info"])
async def test_a_log_in_leads_to_no_other_page(page: Page, demo: str, wanted: str) -> None:
    """`returnTo` is one of the demo's own pages, or nothing."""
    await page.goto(f"{demo}/?returnTo={wanted}")
    await page.get_by_test_id("login-email").fill("demo@example.com")
    await page.get_by_test_id("login-password").fill("demo")
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    assert page.url.startswith(f"{demo}/?")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_its_window_moves_nothing_and_axe_finds_nothing_wrong(
    browser: Browser, demo: str, axe: str, scheme: Any
) -> None:
    """At each width: names, roles, contrast and keyboard, no horizontal scroll, and no shift by a refresh."""
    for width, height in WINDOWS:
        context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = await context.new_page()
        await page.add_init_script(WATCH_SHIFTS)
        await open_account(page, demo)
        await page.get_by_test_id("renew").click()
        await expect(page.get_by_test_id("state")).to_contain_text("Renewed at")
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        shifts = await page.evaluate("shifts")
        assert max((value for value, *_ in shifts), default=0) < 0.005, (width, shifts)
        assert not (found := await violations(page, axe)), "\n".join(found)
        await context.close()
