"""The Next.js example in a real Chromium, built and run as its README says: the visitor's ways, and where no token is.

`test_a_…` to `test_h_…` are the ways that a session can go. test_nextjs_server.py calls the server without a browser.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from starlette.responses import JSONResponse, Response

from tests.support.canaries import hits
from tests.support.chromium import ARGUMENTS, find_chromium, require_playwright
from tests.support.next_example import PASSWORD, REFRESH, SESSION, Example, running_example

require_playwright()

from playwright.async_api import async_playwright, expect  # noqa: E402  # after the check

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Request, WebSocket
    from playwright.async_api import Response as Answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

expect.set_options(timeout=30_000)
ADA, ROOT_USER = "ada@example.com", "root@example.com"
NOTE_FETCHED = """
const fetched = window.fetch;
window.fetch = async (...request) => {
    const answer = await fetched(...request);
    answer.clone().text().then((text) => noteFetched(answer.url, text)).catch(() => {});
    return answer;
};
"""
"""Notes each answer to a script whole: the browser's debugger often has no body of what came piece by piece."""


@dataclass
class Visitor:
    """A browser profile that keeps all it has sent and got, but for cookies. `errors` are those of the console."""

    context: "BrowserContext"
    example: Example
    seen: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    navigations: list[str] = field(default_factory=list)
    _reading: set[asyncio.Task[None]] = field(default_factory=set)

    async def page(self, path: str = "") -> "Page":
        """Open a page, and a path in it if one is given."""
        page = await self.context.new_page()
        page.set_default_timeout(30_000)
        page.on("response", lambda answer: self._reading.add(asyncio.create_task(self._read(answer))))
        page.on("request", self._requested)
        page.on("websocket", self._connected)
        page.on(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        if path:
            await page.goto(self.example.url + path)
        return page

    async def log_in(self, page: "Page", email: str = ADA) -> None:
        """Fill in the log-in form that the page shows."""
        await page.get_by_label("E-mail").fill(email)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Log in").click()

    async def logged_in(self, path: str = "/dashboard", email: str = ADA) -> "Page":
        """Open a page as a user who has just logged in, and wait until its socket is open.

        A page that has no token for its socket yet leaves for the log-in by itself when its cookies are taken away.
        """
        page = await self.page(path)
        await self.log_in(page, email)
        await page.wait_for_url(self.example.url + path)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await ticking(page)
        return page

    async def end_access(self) -> None:
        """Do what a browser does when the access token ends: its cookie has the same end."""
        await self.context.clear_cookies(name=SESSION)

    async def tokens_found(self) -> set[tuple[str, str]]:
        """Return where any token of the backend was seen, in all that this profile has sent, got and stored."""
        for page in self.context.pages:
            if page.url.startswith(self.example.url):
                self.seen[f"html of {page.url}"] = await page.content()
                stored = (
                    "[document.cookie, {...localStorage}, {...sessionStorage}, history.state, location.href]"
                )
                self.seen[f"storages of {page.url}"] = json.dumps(await page.evaluate(stored))
        await asyncio.gather(*self._reading)
        assert self.example.backend.tokens
        return hits({token[:20]: token for token in self.example.backend.tokens}, self.seen)

    def fetched(self, url: str, text: str) -> None:
        """Keep the answer to a script."""
        self.seen[f"fetched {len(self.seen)} {url}"] = text

    async def _read(self, answer: "Answer") -> None:
        where = f"{answer.status} of {answer.url} {id(answer)}"
        headers = [
            header for header in await answer.headers_array() if header["name"].lower() != "set-cookie"
        ]
        self.seen[f"headers {where}"] = json.dumps(headers)
        try:
            self.seen[where] = (await answer.body()).decode(errors="replace")
        except Exception as error:  # noqa: BLE001  # a redirect has no body; that of a page that was left is gone
            self.seen[where] = str(error)

    def _requested(self, request: "Request") -> None:
        self.seen[f"request {request.method} {request.url} {id(request)}"] = (
            f"{request.url} {request.post_data}"
        )
        if request.is_navigation_request():
            self.navigations.append(request.url.removeprefix(self.example.url))

    def _connected(self, socket: "WebSocket") -> None:
        def frame(text: str | bytes) -> None:
            self.seen[f"frame {len(self.seen)}"] = str(text)

        socket.on("framereceived", frame)
        socket.on("framesent", frame)
        socket.on("close", lambda _: self.closed.append(socket.url))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def example(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Example]:
    """The example, built and running."""
    async with running_example(tmp_path_factory.mktemp("nextjs")) as example:
        yield example


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator["Browser"]:
    """A headless Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(browser: "Browser", example: Example) -> AsyncIterator[Visitor]:
    """A fresh profile. After the test no token was anywhere in it, and the backend was asked in this test only."""
    example.backend.answers.clear()
    example.backend.calls.clear()
    context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1440, "height": 900})
    visitor = Visitor(context=context, example=example)
    await context.expose_function("noteFetched", visitor.fetched)
    await context.add_init_script(NOTE_FETCHED)
    yield visitor
    assert await visitor.tokens_found() == set()
    assert [error for error in visitor.errors if "Content Security Policy" in error] == []
    await context.close()


async def heading(page: "Page", text: str) -> None:
    """Wait until the page has this heading."""
    await expect(page.get_by_role("heading", level=1)).to_have_text(text)


async def live(page: "Page") -> None:
    """Wait until every symbol has a live price."""
    await expect(page.locator("tr[data-mark]:not([data-mark=live])")).to_have_count(0)
    await expect(page.locator("tr[data-mark=live]")).to_have_count(5)


async def ticking(page: "Page") -> None:
    """Wait until the header's price is live: the page's socket is open."""
    await expect(page.locator(".ticker[data-stale=false]")).to_be_visible()


async def test_the_build_has_no_warning(example: Example) -> None:
    """`next build` checks the types in strict mode, and says nothing that needs attention."""
    log = (example.app / "build.log").read_text()
    wrong = [
        line for line in log.splitlines() if re.search(r"⚠|warn|deprecat|error|reconfigured", line, re.I)
    ]
    assert not wrong, log
    assert "Finished TypeScript" in log
    settings = json.loads((example.app / "tsconfig.json").read_text())
    assert settings["compilerOptions"]["strict"] is True


async def test_a_without_a_cookie(visitor: Visitor) -> None:
    """A visitor without a cookie is sent to the log-in, and after it to the page with the query that was wanted."""
    page = await visitor.page("/settings?tab=1")
    assert page.url == f"{visitor.example.url}/login?returnTo=%2Fsettings%3Ftab%3D1"
    assert visitor.example.backend.calls.total() == 0
    await visitor.log_in(page)
    await page.wait_for_url(f"{visitor.example.url}/settings?tab=1")
    await heading(page, "Settings of Ada Trader")


async def test_b_with_a_session(visitor: Visitor) -> None:
    """The page comes with the first prices, asks once who the user is, and goes on with live prices."""
    page = await visitor.logged_in()
    backend = visitor.example.backend
    backend.calls.clear()
    answer = await page.reload()
    assert answer is not None
    assert re.search(r"BTC-USD.*?\d+\.\d\d", await answer.text())
    assert (await answer.all_headers())["cache-control"].startswith("private, no-cache, no-store")
    await live(page)
    assert (backend.calls["/auth/me"], backend.calls["/prices"], backend.calls["/auth/refresh"]) == (1, 1, 0)
    assert visitor.errors == []


async def test_b_with_injected_markup(visitor: Visitor) -> None:
    """Injected markup runs no code, loads nothing, sends nothing to another server and moves no address."""
    page = await visitor.logged_in("/settings")
    await page.evaluate("""() => {
        window.refused = new Set();
        addEventListener('securitypolicyviolation', (event) => refused.add(event.effectiveDirective));
        document.body.insertAdjacentHTML('beforeend', '<img src="data:," onerror="window.injected = true">');
        document.head.insertAdjacentHTML('beforeend', '<base href="https://evil.invalid/">');
        fetch('https://evil.invalid/').catch(() => {});
    }""")
    await page.wait_for_function("refused.size === 4")
    wanted = ["base-uri", "connect-src", "img-src", "script-src-attr"]
    assert await page.evaluate("[[...refused].sort(), window.injected]") == [wanted, None]
    visitor.errors.clear()


async def test_c_at_the_log_in_with_a_session(visitor: Visitor) -> None:
    """A visitor with a session is sent from the log-in to the dashboard, but not if the session has ended."""
    page = await visitor.logged_in()
    await page.goto(f"{visitor.example.url}/login")
    assert page.url == f"{visitor.example.url}/dashboard"
    await page.goto(f"{visitor.example.url}/login?ended=1")
    await heading(page, "Log in")


@pytest.mark.parametrize("left", ["no cookie", "refused cookies"])
async def test_d_ended_during_a_client_navigation(visitor: Visitor, left: str) -> None:
    """When the session has ended, a click on a link leads to the log-in, which comes back to that page."""
    page = await visitor.logged_in()
    if left == "no cookie":
        await visitor.context.clear_cookies()
    else:
        visitor.example.backend.accounts.end_all()
    await page.get_by_role("link", name="Settings").click()
    await page.wait_for_url(re.compile(r"/login\?.*returnTo=%2Fsettings$"))
    await heading(page, "Log in")
    await visitor.log_in(page)
    await heading(page, "Settings of Ada Trader")


@pytest.mark.parametrize("cookie", ["gone", "refused"])
async def test_e_access_token_over(visitor: Visitor, cookie: str) -> None:
    """Rows 5 and 6: a page whose access token is over, gone or refused, appears after one refresh."""
    page = await visitor.logged_in("/settings?tab=1")
    await visitor.end_access()
    if cookie == "refused":
        await visitor.context.add_cookies(
            [
                {
                    "name": SESSION,
                    "value": "a.b.c",
                    "url": visitor.example.url,
                    "secure": True,
                    "httpOnly": True,
                }
            ]
        )
    visitor.navigations.clear()
    await page.reload()
    await page.wait_for_url(f"{visitor.example.url}/settings?tab=1")  # without the mark of the renewal
    await heading(page, "Settings of Ada Trader")
    assert visitor.example.backend.calls["/auth/refresh"] == 1
    assert len(visitor.navigations) <= 4, visitor.navigations
    await page.reload()
    await heading(page, "Settings of Ada Trader")
    assert visitor.example.backend.calls["/auth/refresh"] == 1


async def test_e_refused_after_a_refresh(visitor: Visitor) -> None:
    """A token that is refused right after a refresh leads to the log-in in at most three redirects, and stays there."""
    page = await visitor.logged_in()
    visitor.example.backend.answers["/auth/me"] = lambda: Response(status_code=401)
    visitor.navigations.clear()
    await page.reload()
    await page.wait_for_url(re.compile("/login"))
    await expect(page.get_by_role("status")).to_have_text("Your session has ended. Log in to go on.")
    assert visitor.example.backend.calls["/auth/refresh"] == 1
    assert [re.sub(r"\d{13}", "…", path) for path in visitor.navigations] == [
        "/dashboard",
        "/session?returnTo=%2Fdashboard&at=…",
        "/dashboard?renewed=…",
        "/login?ended=1",
    ]


@pytest.mark.parametrize("path", ["/auth/me", "/auth/refresh"])
async def test_e_backend_away(visitor: Visitor, path: str) -> None:
    """While the backend does not answer, the page says so, nobody is logged out, and a button tries again."""
    page = await visitor.logged_in()
    visitor.example.backend.answers[path] = lambda: JSONResponse({}, status_code=503)
    if path == "/auth/refresh":
        await visitor.end_access()
    await page.reload()
    await expect(page.get_by_role("alert").filter(has_text="does not answer")).to_be_visible()
    assert REFRESH in {cookie["name"] for cookie in await visitor.context.cookies()}
    visitor.example.backend.answers.clear()
    await page.get_by_role("button", name="Try again").click()
    await heading(page, "Prices for Ada Trader")


async def test_f_log_out_in_one_tab(visitor: Visitor) -> None:
    """A log-out ends the other tabs and closes their streams. Their back buttons show no page."""
    first = await visitor.logged_in()
    quiet = await visitor.page("/settings")
    streaming = await visitor.page("/settings")
    for page in (first, streaming):
        await page.goto(f"{visitor.example.url}/settings")
        await page.get_by_role("link", name="Dashboard").click()
        await live(page)
    await ticking(quiet)
    visitor.closed.clear()
    await first.get_by_role("button", name="Log out").click()
    for page in (first, quiet, streaming):
        await page.wait_for_url(re.compile(r"/login\?ended=1"))
    await visitor.example.relay.audited("logout")
    assert len(visitor.closed) == 3
    for page in (first, streaming):
        await page.go_back()
        await page.wait_for_url(re.compile(r"/login"))
        await heading(page, "Log in")


async def test_f_restored_page(visitor: Visitor) -> None:
    """A page that the back button restores as it was asks again, and shows nothing before it has an answer."""
    page = await visitor.logged_in("/settings")
    await visitor.context.clear_cookies()
    await page.evaluate("""() => {
        dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));
        if (getComputedStyle(document.documentElement).display !== 'none') throw new Error('the page is shown');
    }""")
    await page.wait_for_url(re.compile(r"/login"))


async def test_g_no_token_anywhere(visitor: Visitor) -> None:
    """No token is in any answer, script, payload, storage or frame of a whole visit; each profile is searched so."""
    page = await visitor.logged_in("/dashboard", ROOT_USER)
    await live(page)
    await page.get_by_role("link", name="Admin").click()
    await heading(page, "Users")
    await page.get_by_role("link", name="Settings").click()
    await page.get_by_label("Note").fill("x")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_have_text("Saved.")
    await visitor.end_access()
    await page.reload()
    await heading(page, "Settings of Root Admin")
    assert await visitor.tokens_found() == set()
    payloads = [
        text for where, text in visitor.seen.items() if where.startswith("fetched") and "_rsc=" in where
    ]
    assert any("root@example.com" in text for text in payloads)
    assert any("welcome" in text for where, text in visitor.seen.items() if where.startswith("frame"))
    [session] = [one for one in await visitor.context.cookies() if one["name"] == SESSION]
    assert (session["httpOnly"], session["secure"], session["value"] in visitor.example.backend.tokens) == (
        True,
    ) * 3


async def test_g_bundle(example: Example) -> None:
    """The browser's scripts have no secret, no address of the backend and none of the code that reads the cookie."""
    scripts = [file.read_text() for file in (example.app / ".next" / "static").rglob("*.js")]
    assert any("/api/auth/refresh" in script for script in scripts)
    for word in ("BACKEND_URL", "127.0.0.1:9000", "x-forwarded-for", SESSION, REFRESH):
        assert not any(word in script for script in scripts), word


@pytest.mark.parametrize("how", ["access token over", "session over"])
async def test_h_form_open_for_long(visitor: Visitor, how: str) -> None:
    """A form that was open for longer than the access token lives is saved after one refresh, or asks to log in."""
    page = await visitor.logged_in("/settings")
    await page.get_by_label("Note").fill(f"after 16 minutes: {how}")
    if how == "access token over":
        await visitor.end_access()
    else:
        await visitor.context.clear_cookies()
    await page.get_by_role("button", name="Save").click()
    if how == "access token over":
        await expect(page.get_by_role("status")).to_have_text("Saved.")
        await expect(page.get_by_label("Note")).to_have_value(f"after 16 minutes: {how}")
        assert visitor.example.backend.accounts.settings[ADA] == {"note": f"after 16 minutes: {how}"}
        assert visitor.example.backend.calls["/auth/refresh"] == 1
    else:
        await page.wait_for_url(re.compile(r"/login\?ended=1&returnTo=%2Fsettings"))


async def test_h_renewed_before_its_end(visitor: Visitor) -> None:
    """A visible page renews the session once before its end, also after a sleep."""
    backend = visitor.example.backend
    page = await visitor.logged_in("/settings")
    await page.clock.install()
    await page.reload()
    await ticking(page)
    await page.clock.fast_forward("12:30")
    await backend.wait_for("/auth/refresh", 1)
    await ticking(page)
    await page.clock.fast_forward("01:00")
    await ticking(page)
    assert await page.evaluate("fetch('/api/auth/me').then((answer) => answer.status)") == 200
    assert backend.calls["/auth/refresh"] == 1
