"""The ops page in a real Chromium, on the internal listener of a real relay."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
import pytest_asyncio

from tests.support.chromium import require_playwright
from tests.support.operators import OPERATORS, OPS, READER, SECRET
from tests.support.relay_process import Relay, running

require_playwright()

from playwright.async_api import Browser, Page, Route, expect  # noqa: E402  # after the check

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOAD_MS = 30_000
"""How long a busy machine may take for anything here; nothing is measured."""
HOSTILE = "<img src=x onerror=document.title='broken'>"

expect.set_options(timeout=LOAD_MS)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators."""
    with running(tmp_path_factory.mktemp("watched"), extra=OPERATORS) as relay:
        yield relay


@pytest_asyncio.fixture(loop_scope="session")
async def problems(page: Page) -> AsyncIterator[list[str]]:
    """What the page's console complains of; nothing is right but for what a test expects."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    yield found


async def open_page(page: Page, relay: Relay, key: str = OPS) -> None:
    """Open the page and type the key."""
    await page.goto(f"{relay.internal_url}/ops")
    await page.get_by_test_id("key").fill(key)
    await page.get_by_test_id("enter").click()


async def test_a_key_opens_the_page_and_a_wrong_key_is_reported(page: Page, watched: Relay) -> None:
    """Without the key there is nothing to see; a refusal says how to make a key."""
    await open_page(page, watched, "ops.wrong")
    await expect(page.get_by_test_id("login-error")).to_contain_text("operator key")
    await expect(page.locator("#numbers")).to_be_hidden()
    await page.get_by_test_id("key").fill(OPS)
    await page.get_by_test_id("enter").click()
    await expect(page.get_by_test_id("state")).to_have_text("live")
    await expect(page.locator("#numbers")).to_be_visible()


async def answer(status: int, body: str, route: Route) -> None:
    """Answer a request in place of the relay."""
    await route.fulfill(status=status, body=body)


async def test_a_proxys_refusal_does_not_forget_the_key(page: Page, watched: Relay) -> None:
    """Only the relay can say that a key is wrong. The page says what came, and shows the numbers again."""
    await open_page(page, watched)
    await expect(page.get_by_test_id("state")).to_have_text("live")
    for status, body in (
        (403, "<h1>Forbidden</h1>"),
        (401, '{"message":"sign in"}'),
        (200, "<h1>Sign in</h1>"),
    ):
        await page.route("**/v1/stats", partial(answer, status, body))
        expected = f"The answer {status} does not come from the relay."
        await expect(page.get_by_test_id("state")).to_have_text(expected)
        await expect(page.locator("#numbers")).to_be_visible()
        await page.unroute("**/v1/stats")
        await expect(page.get_by_test_id("state")).to_have_text("live")


async def test_charts_leave_out_the_time_in_which_nothing_was_known(page: Page, watched: Relay) -> None:
    """Otherwise a point from before the tab was hidden would look two seconds old."""
    await page.goto(f"{watched.internal_url}/ops")
    drawn = await page.evaluate(
        """async () => {
          const { Chart } = await import('/ops/charts.js');
          const parent = document.body;
          const chart = new Chart({ title: 'x', series: ['a'], format: String, capacity: 5, step_s: 2, parent });
          const shown = [];
          for (const missed of [0, 2, 9]) {
            chart.skip(missed);
            chart.add([missed + 1]);
            shown.push(chart.values[0].slice());
          }
          return shown;
        }"""
    )
    assert drawn == [[1], [1, None, None, 3], [None, None, None, None, 10]]


async def test_all_nodes_are_shown_and_one_that_vanished_with_its_time(page: Page, watched: Relay) -> None:
    """Figures of those that run, why one is not ready; without an engine the page has no such table."""
    panel, rows = page.locator("#node-panel"), page.get_by_test_id("nodes").locator("tr")
    await open_page(page, watched)
    await expect(page.get_by_test_id("publishers").locator("tr")).to_have_count(1)
    await expect(panel).to_be_hidden()
    (own,) = (await watched.get_internal("/v1/nodes", key=READER)).json()["nodes"]
    assert (own["state"], own["connections"], own["engine"]) == ("live", 0, None)
    running = own | {"deliveries_s": 1234.5, "delay_s": 0.012, "engine": {"generation": 7, "resyncs": 2}}
    running |= {"connections": 41, "reads": [1, 2], "writes": 1}
    lame = running | {"id": "b", "node": "b", "ready": {"stream": "It is slow.", "ingest": None}}
    gone = running | {"id": "c", "node": HOSTILE, "state": "vanished", "seen_at": own["seen_at"] - 600}
    gone |= {"reads": [1, 1]}
    warned = running | {"id": "d", "engine": running["engine"] | {"warning": "It may evict keys."}}
    body = json.dumps({"at": own["seen_at"], "nodes": [running, lame, gone, warned]})
    await page.route("**/v1/nodes", partial(answer, 200, body))
    await expect(panel.locator(".count")).to_have_text("3 of 4")
    await expect(rows.nth(0)).to_contain_text("live")
    await expect(rows.nth(0)).to_contain_text("reads log format 1 to 2, writes 1")
    for text in ("41", "1,235/s", "12 ms", "7"):
        await expect(rows.nth(0).locator("td.n", has_text=text).first).to_be_visible()
    await expect(rows.nth(1)).to_contain_text("not readystream: It is slow.")
    await expect(rows.nth(2)).to_contain_text("vanished10 min ago, at ")
    await expect(rows.nth(2)).to_contain_text(HOSTILE)
    await expect(rows.nth(2).locator("td.n", has_text="41")).to_have_count(0)
    await expect(rows.nth(3)).to_contain_text("liveIt may evict keys.")


async def test_the_key_is_nowhere_but_in_memory(page: Page, watched: Relay) -> None:
    """No cookie, storage, address, history or form field has it; a reload forgets it."""
    await open_page(page, watched)
    await expect(page.get_by_test_id("state")).to_have_text("live")
    readable = await page.evaluate(
        """async () => [document.cookie, JSON.stringify({ ...localStorage }), JSON.stringify({ ...sessionStorage }),
             JSON.stringify(await indexedDB.databases()), location.href, JSON.stringify(history.state), name,
             document.documentElement.outerHTML, ...[...document.querySelectorAll('input')].map(one => one.value)]"""
    )
    assert not [text for text in readable if SECRET in text]
    assert await page.context.cookies() == []
    await page.reload()
    await expect(page.locator("#numbers")).to_be_hidden()


async def test_it_shows_what_is_going_on_and_breaks_no_rule_of_its_policy(
    page: Page, watched: Relay, problems: list[str]
) -> None:
    """Connections, channels with a rate, the log; hostile names as text; nothing from elsewhere."""
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
    token = await watched.token(watched.session(sub=HOSTILE))
    await watched.ask(watched.session(sub=HOSTILE, roles=["nobody"]))
    async with watched.connect(token, query="?channels=prices.A") as socket:
        await open_page(page, watched)
        await expect(page.get_by_test_id("connections").locator("tr")).to_have_count(1)
        await expect(page.get_by_test_id("connections")).to_contain_text(HOSTILE)
        await expect(page.get_by_test_id("feed")).to_contain_text(HOSTILE)
        row = page.get_by_test_id("channels").locator("tr").filter(has_text="prices.A")
        async with asyncio.timeout(LOAD_MS / 1000):
            while (
                "0.0/s" in (rate := await published(watched, row.locator("td").first.text_content))
                or "/s" not in rate
            ):
                pass
        await expect(row).to_contain_text("live")
        await expect(page.get_by_test_id("publishers").locator("tr")).to_contain_text("pricing")
        await expect(page.locator(".chart title").first).to_contain_text("Connections: 1")
        await socket.websocket.close()
    await expect(page.get_by_test_id("connections").locator("tr")).to_have_count(0)
    assert await page.title() == "scoped-relay · operations"
    assert problems == []
    assert hosts - {""} == {watched.internal_url.split("/")[2]}


async def published(relay: Relay, read: object) -> str:
    """Publish a price and return what a cell says."""
    await relay.publish("prices.A", 1)
    assert callable(read)
    return str(await read() or "")


async def test_a_click_tells_the_story_of_a_token(page: Page, watched: Relay) -> None:
    """Step by step in plain words, from the token's issue to the attempt to use it again."""
    token = await watched.token(watched.session(sub="grace"))
    async with watched.connect(token):
        pass
    with pytest.raises(Exception, match="401"):
        async with watched.connect(token):
            pass
    await open_page(page, watched)
    await page.get_by_test_id("outcome").select_option("failure")
    await page.get_by_test_id("feed").get_by_role("button").filter(has_text="grace").first.click()
    steps = page.get_by_test_id("timeline").locator("li")
    await expect(steps).to_have_count(4)
    await expect(steps.nth(0)).to_contain_text("grace A token for prices as trader: requested")
    await expect(steps.nth(1)).to_contain_text("The token was used up (as subprotocol)")
    await expect(steps.nth(2)).to_contain_text("Ended by the client")
    await expect(steps.nth(3)).to_contain_text("The token was used before. A token was used a second time")


async def test_cutting_a_session_off_asks_first_and_is_audited(page: Page, watched: Relay) -> None:
    """Nothing happens on a no; on a yes the socket closes with 4501, and the log says which operator it was."""
    async with watched.connect(await watched.token(watched.session(sub="heidi"))) as socket:
        await open_page(page, watched)
        await page.get_by_role("button", name="End session of heidi").click()
        await expect(page.locator("#cut")).to_contain_text("heidi")
        await expect(page.get_by_role("button", name="Keep it")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.locator("#cut")).to_be_hidden()
        assert not [one for one in watched.audit() if one["event"]["action"] == "session.revoked"]
        await page.get_by_role("button", name="End session of heidi").click()
        await page.get_by_test_id("cut-yes").click()
        assert (await socket.closed())[0] == 4501
    await watched.audited("session.revoked")
    record = next(
        one
        for one in reversed(watched.audit())
        if (one["event"]["action"], one["url"]["path"] if "url" in one else "") == ("session.revoked", "")
        or one.get("url", {}).get("path") == "/v1/revocations"
    )
    assert "ops" in json.dumps(record["relay"])


async def test_a_reading_operator_can_not_close_connections(page: Page, watched: Relay) -> None:
    """The relay refuses it, and the dialog says why."""
    async with watched.connect(await watched.token(watched.session(sub="ivan"))):
        await open_page(page, watched, READER)
        await page.get_by_role("button", name="End session of ivan").click()
        await page.get_by_test_id("cut-yes").click()
        await expect(page.locator("#cut-error")).not_to_be_empty()
        await expect(page.locator("#numbers")).to_be_visible()


async def test_a_question_is_answered_in_a_table(page: Page, watched: Relay, problems: list[str]) -> None:
    """By keyboard and by names that screen readers say; an empty answer, a mistake, and a hostile name as text."""
    await watched.ask(watched.session(sub=HOSTILE, roles=["nobody"]))
    await watched.audited("token.denied")
    await page.set_viewport_size({"width": 390, "height": 844})
    await open_page(page, watched)
    form = page.get_by_role("region", name="Questions to the whole log")
    state, rows = page.get_by_test_id("question-state"), page.get_by_test_id("answer").locator("tr")
    await form.get_by_label("Name or id").fill(HOSTILE)
    await page.keyboard.press("Enter")
    await expect(state).to_contain_text("Story of a user")
    await expect(rows.filter(has_text="token.denied").first).to_contain_text(HOSTILE)
    await expect(form.get_by_role("group", name="Answer")).to_be_visible()
    await expect(page.locator("#question-notes")).to_contain_text("Known up to record")
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await page.locator("#answer").evaluate("it => it.scrollWidth") <= 390, (
        "each row is read as a block"
    )
    await form.get_by_label("Question").select_option("Refusals by day")
    await expect(form.get_by_label("Name or id")).to_be_hidden()
    await form.get_by_label("Until").fill("7d")
    await form.get_by_role("button", name="Ask").click()
    await expect(state).to_have_text("The log has nothing about it in this time.")
    await expect(rows).to_have_count(0)
    await form.get_by_label("Until").fill("gestern")
    await form.get_by_role("button", name="Ask").click()
    await expect(form.get_by_role("alert")).to_contain_text("'gestern' is no time")
    assert await page.title() == "scoped-relay · operations"
    assert [one for one in problems if "400" not in one] == []
    await page.get_by_role("button", name="Forget key").click()
    await expect(page.get_by_test_id("question-error")).to_be_empty()


@pytest.mark.parametrize("width", [360, 390, 641, 781, 1181, 1280, 1440, 1501])
async def test_the_ages_of_old_prices_fit(browser: Browser, watched: Relay, width: int) -> None:
    """The heads of the charts have one line and stay in their panels, whatever their numbers are."""
    context = await browser.new_context(viewport={"width": width, "height": 900})
    page = await context.new_page()
    await open_page(page, watched)
    await expect(page.get_by_test_id("state")).to_have_text("live")
    widths = await page.evaluate(
        """() => {
            for (const number of document.querySelectorAll(".chart b")) number.textContent = "59 min";
            const heads = [...document.querySelectorAll(".chart figcaption")];
            return heads.map((head) => head.scrollWidth - head.clientWidth);
        }"""
    )
    assert widths == [0, 0, 0, 0]
    assert await page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1440])
async def test_it_fits_and_can_be_read_by_keyboard(browser: Browser, watched: Relay, width: int) -> None:
    """No sideways scrolling; the charts answer to the arrow keys."""
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark")
    page = await context.new_page()
    await open_page(page, watched)
    await expect(page.get_by_test_id("state")).to_have_text("live")
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    chart = page.locator(".chart").first
    await chart.locator("svg").focus()
    await page.keyboard.press("ArrowLeft")
    await expect(chart.locator("output")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(chart.locator("output")).to_be_hidden()
    await context.close()
