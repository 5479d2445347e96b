"""The example pages behind nginx, started as their README says, in a real Chromium."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support import readme
from tests.support.accessibility import axe_script, in_both_schemes
from tests.support.chromium import ARGUMENTS, find_chromium, require_playwright
from tests.support.http_client import http_client
from tests.support.ports import free_ports
from tests.support.reverse_proxy import needed

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Request, Response, Route

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = readme.ROOT / "examples" / "pages" / "start.py"
TOKENS = ("access-token", "refresh-token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The running example: nginx's address, and the backend's."""

    url: str
    backend: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example with all its parts."""
    needed("nginx")
    ports = free_ports(6)
    log = tmp_path_factory.mktemp("pages") / "start.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(START), "--ports", *map(str, ports)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("Ctrl-C"):
            lines.append(process.stdout.readline())
            assert lines[-1], log.read_text()
        yield Site(url=f"http://localhost:{ports[0]}", backend=f"http://127.0.0.1:{ports[5]}")
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator["Browser"]:
    """A headless Chromium."""
    require_playwright()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: "Browser") -> AsyncIterator["BrowserContext"]:
    """A profile of its own, whose pages report no error and break no rule of their policy."""
    context = await browser.new_context()
    context.set_default_timeout(30_000)
    said: list[str] = []
    context.on("weberror", lambda error: said.append(str(error.error)))
    context.on(
        "console", lambda message: said.append(message.text) if "Content Security" in message.text else None
    )
    yield context
    await context.close()
    assert said == []


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: "BrowserContext", site: Site) -> "Page":
    """A page of a user who has logged in, at the dashboard, with an open socket.

    Without a token for its socket the page would renew the session, or leave for the log-in, in the middle of a test.
    """
    page = await context.new_page()
    await page.goto(f"{site.url}/dashboard")
    await log_in(page)
    await page.wait_for_url(f"{site.url}/dashboard")
    await live(page)
    return page


async def log_in(page: "Page", password: str = "demo") -> None:
    """Fill in the log-in and send it."""
    await page.get_by_label("E-mail").fill("demo@example.com")
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()


async def live(page: "Page") -> None:
    """Wait until the dashboard's socket is open."""
    await page.get_by_text("live", exact=True).wait_for()


async def tokens(context: "BrowserContext") -> dict[str, str]:
    """Return the tokens in the browser's cookies, which no script can read."""
    cookies = {cookie["name"]: cookie for cookie in await context.cookies()}
    assert all(cookies[name]["httpOnly"] for name in TOKENS if name in cookies)
    return {name: cookies[name]["value"] for name in TOKENS if name in cookies}


async def test_from_a_protected_page_to_the_login_and_back(context: "BrowserContext", site: Site) -> None:
    """A wrong password is told; after the right one the wanted page opens, its form saves, and prices move.

    Axe finds nothing wrong on the three pages.
    """
    axe = axe_script()
    page = await context.new_page()
    await page.goto(f"{site.url}/settings?from=mail")
    assert page.url == f"{site.url}/login?returnTo=%2Fsettings%3Ffrom%3Dmail"
    await log_in(page, "wrong")
    await page.get_by_role("alert").get_by_text("is wrong").wait_for()
    assert await in_both_schemes(page, axe) == []
    await log_in(page)
    await page.wait_for_url(f"{site.url}/settings?from=mail")
    await page.get_by_label("Symbols").fill("btc-usd XAU-USD")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text("Saved.").wait_for()
    await page.get_by_label("Symbols").fill("../auth/logout")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text("symbols like BTC-USD").wait_for()
    assert await in_both_schemes(page, axe) == []
    await page.get_by_role("link", name="Dashboard").click()
    bid = page.locator("tr[data-symbol=XAU-USD] .bid")
    await live(page)
    await page.wait_for_function(
        "() => /\\d/.test(document.querySelector('tr[data-symbol=XAU-USD] .bid').textContent)"
    )
    before = await bid.text_content()
    await page.wait_for_function(
        "(before) => document.querySelector('tr[data-symbol=XAU-USD] .bid').textContent !== before",
        arg=before,
    )
    assert await in_both_schemes(page, axe) == []


async def test_no_token_reaches_the_page(context: "BrowserContext", site: Site, page: "Page") -> None:
    """No body, no header but Set-Cookie, no storage and no script's cookie has a token, also after a refresh."""
    seen: list[str] = []
    reading: list[asyncio.Task[None]] = []

    async def read(response: "Response") -> None:
        headers = await response.all_headers()
        seen.append(str({name: value for name, value in headers.items() if name != "set-cookie"}))
        if response.status == 200 and "/session?" not in response.url:  # a page that goes on can't be read
            seen.append(await response.text())

    page.on("response", lambda response: reading.append(asyncio.ensure_future(read(response))))
    first = await tokens(context)
    await context.clear_cookies(name="access-token")
    renewal = await context.request.get(f"{site.url}/settings")
    assert "/session?" in renewal.url
    seen.append(await renewal.text())
    await page.goto(f"{site.url}/settings")
    await page.get_by_role("heading", name="Settings").wait_for()
    await asyncio.gather(*reading)
    await page.goto(f"{site.url}/dashboard")
    await live(page)
    await asyncio.gather(*reading)
    seen.append(
        await page.evaluate(
            "() => JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, history.state,"
            " document.documentElement.outerHTML, location.href])"
        )
    )
    assert len(seen) > 10
    for name, token in [*first.items(), *(await tokens(context)).items()]:
        assert len(token) > 20
        assert not any(token in text for text in seen), name


async def test_an_expired_access_token_is_renewed_once(
    context: "BrowserContext", site: Site, page: "Page"
) -> None:
    """The refresh cookie alone: the wanted page, one refresh, no mark in the address bar or the history."""
    refreshes: list[tuple[str, str | None]] = []

    def note(request: "Request") -> None:
        if "refresh" in request.url:
            refreshes.append((request.url, request.headers.get("x-relay-csrf")))

    page.on("request", note)
    before = await tokens(context)
    await context.clear_cookies(name="access-token")
    await page.goto(f"{site.url}/settings?a=1")
    await page.get_by_role("heading", name="Settings").wait_for()
    await page.wait_for_url(f"{site.url}/settings?a=1")
    assert refreshes == [(f"{site.url}/api/auth/refresh", "1")], "as csrf.require_header needs it"
    after = await tokens(context)
    assert set(after) == set(TOKENS)
    assert not set(after.values()) & set(before.values())
    await page.go_back()
    await page.wait_for_url(f"{site.url}/dashboard")
    assert len(refreshes) == 1


async def test_a_refresh_without_an_answer_is_told(
    context: "BrowserContext", site: Site, page: "Page"
) -> None:
    """The page of the renewal says what is wrong and keeps the session; the next try goes on."""

    async def unavailable(route: "Route") -> None:
        await route.fulfill(status=503)

    await page.route("**/api/auth/refresh", unavailable)
    await context.clear_cookies(name="access-token")
    await page.goto(f"{site.url}/settings")
    await page.get_by_text("The server answered 503").wait_for()
    assert "refresh-token" in await tokens(context)
    await page.unroute("**/api/auth/refresh")
    await page.get_by_role("link", name="Try again").click()
    await page.get_by_role("heading", name="Settings").wait_for()


async def test_a_session_that_ended_elsewhere(context: "BrowserContext", site: Site, page: "Page") -> None:
    """The next page leads to the log-in, which says why and opens that page afterwards."""
    access = (await tokens(context))["access-token"]
    async with http_client() as client:
        answer = await client.post(
            f"{site.backend}/auth/logout", headers={"Authorization": f"Bearer {access}"}
        )
    assert answer.status_code == 204
    await page.get_by_role("link", name="Settings").click()
    await page.get_by_text("Your session has ended").wait_for()
    assert page.url == f"{site.url}/login?ended=1&returnTo=%2Fsettings"
    assert "refresh-token" not in await tokens(context)
    await log_in(page)
    await page.get_by_role("heading", name="Settings").wait_for()
    assert page.url == f"{site.url}/settings"


async def test_a_log_out_reaches_all_tabs(context: "BrowserContext", site: Site, page: "Page") -> None:
    """The other tab goes to the log-in, and the back button shows no page of the user."""
    other = await context.new_page()
    await other.goto(f"{site.url}/settings")
    await page.goto(f"{site.url}/settings")
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url(f"{site.url}/login")
    await other.wait_for_url(f"{site.url}/login?ended=1&returnTo=%2Fsettings")
    assert await tokens(context) == {}
    await page.go_back()
    await page.get_by_role("heading", name="Log in").wait_for()
    assert await page.get_by_text("Demo Trader").count() == 0


async def test_a_user_with_a_session_skips_the_login(site: Site, page: "Page") -> None:
    """The log-in leads to the dashboard, and after an end it stays, whatever cookies there are."""
    await page.goto(f"{site.url}/login")
    assert page.url == f"{site.url}/dashboard"
    await page.goto(f"{site.url}/login?ended=1")
    assert page.url == f"{site.url}/login?ended=1"
