"""The demo's page in a real Chromium, against `relay demo` as a user starts it."""

import json
from typing import Any

import pytest

from tests.support.chromium import require_playwright

require_playwright()

from playwright.async_api import Browser, Page, Response, Route, WebSocket, expect  # noqa: E402  # after the check

pytestmark = pytest.mark.asyncio(loop_scope="session")

SYMBOLS = 20
LOAD_MS = 30_000
"""How long a busy machine may take for anything here; nothing is measured."""

expect.set_options(timeout=LOAD_MS)


async def log_in(page: Page, origin: str, password: str = "demo") -> None:
    """Fill in the form of a page that is not logged in."""
    await page.goto(origin + "/")
    await page.get_by_test_id("login-email").fill("demo@example.com")
    await page.get_by_test_id("login-password").fill(password)
    await page.get_by_test_id("login-submit").click()


async def read_prices(page: Page) -> dict[str, list[str]]:
    """The bid and ask that the table shows, by symbol."""
    prices: dict[str, list[str]] = await page.get_by_test_id("price-row").evaluate_all(
        """rows => Object.fromEntries(rows.map(row => [row.dataset.symbol,
             [row.querySelector('.bid').textContent, row.querySelector('.ask').textContent]]))"""
    )
    return prices


async def prices_move(page: Page, *, symbols: int = 3) -> None:
    """Wait until so many symbols' prices have differed from what they are now."""
    before = await read_prices(page)
    assert len(before) == SYMBOLS
    await page.wait_for_function(
        """([before, symbols]) => [...document.querySelectorAll('[data-testid=price-row]')].filter(row => {
             const [bid, ask] = before[row.dataset.symbol];
             const text = (side) => row.querySelector(side).textContent;
             row.moved ||= text('.bid') !== bid || text('.ask') !== ask;
             return row.moved;
           }).length >= symbols""",
        arg=[before, symbols],
        timeout=LOAD_MS * 2,
    )


async def test_a_wrong_password_is_refused_and_the_right_one_shows_twenty_moving_prices(
    page: Page, demo: str
) -> None:
    """The whole journey: cookie, token, socket, prices."""
    await log_in(page, demo, "wrong")
    await expect(page.get_by_test_id("login-error")).to_have_text("The name or the password is wrong.")
    await expect(page.get_by_test_id("price-row")).to_have_count(0)
    await page.get_by_test_id("login-password").fill("demo")
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    await prices_move(page, symbols=SYMBOLS)


async def test_the_page_breaks_no_rule_of_its_own_policy_and_loads_nothing_from_elsewhere(
    page: Page, demo: str
) -> None:
    """No inline script or style, no outside resource, and no error, not even a refused request for a token."""
    problems: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    assert problems == []
    assert hosts - {""} == {demo.split("/")[2]}


async def test_no_script_on_the_page_can_read_the_access_token(page: Page, demo: str) -> None:
    """Not in cookies, storage, any answer or frame that the page gets, its HTML, or what the log-in form holds."""
    bodies: list[str] = []
    frames: list[str] = []

    async def keep(response: Response) -> None:
        if response.status not in (204, 304):
            bodies.append((await response.body()).decode(errors="replace"))

    def listen(socket: WebSocket) -> None:
        frames.append(socket.url)
        socket.on("framereceived", lambda payload: frames.append(str(payload)))

    page.on("response", keep)
    page.on("websocket", listen)
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    await expect(page.get_by_test_id("audit-list")).to_contain_text("token.issued")

    cookies = {cookie["name"]: cookie for cookie in await page.context.cookies()}
    tokens = [cookie["value"] for cookie in cookies.values() if "token" in cookie["name"]]
    assert tokens
    assert all(cookie["httpOnly"] for cookie in cookies.values())
    readable: list[str] = await page.evaluate(
        """async () => [document.cookie, JSON.stringify({ ...localStorage }), JSON.stringify({ ...sessionStorage }),
             JSON.stringify(await cookieStore.getAll()), JSON.stringify(await indexedDB.databases()),
             JSON.stringify(await caches.keys()), document.documentElement.outerHTML,
             JSON.stringify([...document.querySelectorAll('input')].map(input => input.value)),
             JSON.stringify(history.state), location.href, name]"""
    )
    assert readable[:6] == ["", "{}", "{}", "[]", "[]", "[]"]
    assert len(bodies) > 5
    assert len(frames) > SYMBOLS
    for token in tokens:
        # a JWT's signature alone would be enough to know it again
        for part in (token, token.split(".")[-1]):
            assert not [text[:80] for text in (*readable, *bodies, *frames) if part in text]
    await expect(page.locator("#proof-badge")).to_contain_text("not readable")


async def test_the_used_token_is_refused_with_its_reason_and_the_prices_go_on(page: Page, demo: str) -> None:
    """A browser can't see why an upgrade was refused, so the page tries over the first frame; the audit knows more."""
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    claims = page.get_by_test_id("token-claims")
    await expect(claims).to_contain_text("prices.>")
    await expect(claims.locator("[data-claim=exp]")).to_contain_text("s left")
    await page.get_by_test_id("replay-button").click()
    await expect(page.get_by_test_id("replay-result")).to_contain_text("close code 3000, invalid_token")
    await expect(page.get_by_test_id("audit-list")).to_contain_text("connect.denied token_replayed")
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await prices_move(page)


async def test_a_log_out_that_something_else_answered_is_none(page: Page, demo: str) -> None:
    """A proxy's page has 200: the desk stays open, and says that the log-out failed."""
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)

    async def answer(route: Route) -> None:
        await route.fulfill(status=200, content_type="text/html", body="<h1>Welcome to nginx!</h1>")

    await page.route("**/api/auth/logout", answer)
    await page.get_by_test_id("logout").click()
    await expect(page.get_by_text("You are still logged in: the server answered 200")).to_be_visible()
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await expect(page.get_by_test_id("logout")).to_be_enabled()


async def test_logging_out_closes_the_socket_with_4501_and_no_price_moves_after_it(
    page: Page, demo: str
) -> None:
    """The page says so, keeps the prices as stale, and a new log-in brings them back."""
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    async with sockets[0].expect_event("close", timeout=LOAD_MS):
        await page.get_by_test_id("logout").click()
    await expect(page.get_by_test_id("conn-state")).to_have_text("closed 4501")
    await expect(page.get_by_role("alert").filter(has_text="4501")).to_contain_text("session_revoked")
    await expect(page.locator("tr.stale[data-testid=price-row]")).to_have_count(SYMBOLS)
    frozen = await read_prices(page)
    # the audit list is polled: when it shows the log-out, the page has lived on for a while
    await expect(page.get_by_test_id("audit-list")).to_contain_text("connection.closed session_revoked")
    assert await read_prices(page) == frozen
    assert len(sockets) == 1

    await page.get_by_role("button", name="Log in again").click()
    await page.get_by_test_id("login-password").fill("demo")
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await prices_move(page)


async def test_the_plain_way_works_without_any_library(page: Page, demo: str) -> None:
    """`fetch` and `WebSocket` are all that a page needs: channels in the token, or in the URL."""
    await log_in(page, demo)
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    for body, query in (
        ({"endpoint": "prices", "channels": ["prices.BTC-USD", "prices.ETH-USD"]}, ""),
        (None, "&channels=prices.BTC-USD,prices.ETH-USD"),
        (None, "&channels=prices.*"),
    ):
        frames: list[dict[str, Any]] = await page.evaluate(
            """async ([body, query]) => {
              const headers = body ? { 'content-type': 'application/json' } : {};
              const options = { method: 'POST', headers, body: body && JSON.stringify(body) };
              const { wsToken, endpoint } = await (await fetch('/auth/ws-token', options)).json();
              const socket = new WebSocket(endpoint + '?token=' + wsToken + query);
              const frames = [];
              return new Promise((resolve, reject) => {
                socket.onclose = ({ code, reason }) => reject(new Error(`closed: ${code} ${reason}`));
                socket.onmessage = ({ data }) => {
                  frames.push(JSON.parse(data));
                  if (frames.at(-1).type !== 'update') return;
                  socket.onclose = null;
                  socket.close();
                  resolve(frames);
                };
              });
            }""",
            [body, query],
        )
        kinds = [frame["type"] for frame in frames]
        assert kinds[:3] == ["welcome", "subscribed", "snapshot"], json.dumps(frames)[:400]
        assert frames[-1]["data"].keys() >= {"symbol", "bid", "ask"}


async def test_a_page_that_is_reloaded_is_still_logged_in(page: Page, demo: str) -> None:
    """The cookie outlives the page; a new token is taken and nothing was stored."""
    await log_in(page, demo)
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await page.reload()
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)


async def test_a_lost_network_greys_the_prices_and_its_return_brings_them_back(page: Page, demo: str) -> None:
    """Without a network no close frame arrives: the client's own judgement of the silence ends the connection."""
    await page.add_init_script(
        "window.sockets = []; const Real = WebSocket;"
        "window.WebSocket = class extends Real { constructor(...all) { super(...all); sockets.push(this); } }"
    )
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    await page.context.set_offline(True)
    await page.evaluate("sockets[0].close()")
    await expect(page.get_by_test_id("conn-state")).to_have_text("reconnecting")
    await expect(page.locator("tr.stale[data-testid=price-row]")).to_have_count(SYMBOLS)
    await page.context.set_offline(False)
    await expect(page.get_by_test_id("conn-state")).to_have_text("live")
    await expect(page.locator("tr.stale[data-testid=price-row]")).to_have_count(0)
    await prices_move(page)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1440, 900), (1920, 1080)])
async def test_the_page_fits_its_window(
    browser: Browser, demo: str, width: int, height: int, scheme: Any
) -> None:
    """No horizontal scroll at any width, and every row's price is whole."""
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = await context.new_page()
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate(
        "[...document.querySelectorAll('tbody td, tbody th')].every(cell => cell.scrollWidth <= cell.clientWidth + 1)"
    )
    await context.close()


async def test_a_hidden_tab_writes_and_asks_nothing(page: Page, demo: str) -> None:
    """Frames go on arriving; the page is written when somebody can see it."""
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    await page.add_init_script(
        "Object.defineProperty(document, 'hidden', { get: () => window.away === true })"
    )
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)

    async def frames(count: int) -> None:
        for _ in range(count):
            async with sockets[0].expect_event("framereceived", timeout=LOAD_MS):
                pass

    await page.evaluate("window.away = true; document.dispatchEvent(new Event('visibilitychange'))")
    await frames(5)  # a paint that was on its way is done by then
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = await page.locator("body").inner_text()
    await frames(40)
    assert await page.locator("body").inner_text() == before
    assert asked == []
    await page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    await prices_move(page)


async def test_rows_are_chosen_with_the_keyboard(page: Page, demo: str) -> None:
    """What the mouse can do, Tab and Enter can."""
    await log_in(page, demo)
    await expect(page.get_by_test_id("price-row")).to_have_count(SYMBOLS)
    button = page.locator("[data-symbol=ETH-USD] button")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(button).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#chart-symbol")).to_have_text("ETH-USD")
