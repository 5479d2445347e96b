"""The hooks of scoped-relay/react in Chromium, with React 18 and 19 in StrictMode, against a real relay.

The page is tests/support/react_page.jsx with the packed package, bundled as an application bundles it.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from tests.support.chromium import require_playwright
from tests.support.npm_package import Project, project_with_package
from tests.support.relay_process import Relay, running

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCE = Path(__file__).parents[1] / "support" / "react_page.jsx"
PATIENCE_MS = 30_000
MOUNTS = 200
NODE = """
globalThis.fetch = globalThis.WebSocket = () => { throw Error('A server that renders opens nothing.'); };
const { createElement } = await import('react');
const { renderToString } = await import('react-dom/server');
const { RelayProvider, usePrice, usePriceStream } = await import('scoped-relay/react');
const Table = () => {
  const { prices, state, stale, error } = usePriceStream(['BTC-USD']);
  return JSON.stringify([prices, state, stale, error, usePrice('BTC-USD') ?? 'none']);
};
console.log(renderToString(createElement(RelayProvider, { endpoint: 'prices' }, createElement(Table))));
for (const mistake of [undefined, 'BTC-USD', ['']]) {
  try {
    renderToString(createElement(() => usePriceStream(mistake)));
  } catch (error) {
    console.log(`${error}`);
  }
}
process.exit();
"""
MISTAKES = [
    'TypeError: undefined is no list, such as ["BTC-USD"].',
    'TypeError: "BTC-USD" is no list, such as ["BTC-USD"].',
    'TypeError: "" is no symbol, such as "BTC-USD".',
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the packed package; two versions of React are there."""
    return project_with_package(tmp_path_factory.mktemp("react"))


@pytest.fixture(scope="module", params=[19, 18])
def script(project: Project, request: pytest.FixtureRequest) -> str:
    """The page's script with one version of React."""
    return project.bundle(SOURCE, react=request.param)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A running relay."""
    with running(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


class App:
    """The open page."""

    def __init__(self, page: Page, relay: Relay) -> None:
        self.page = page
        self._relay = relay

    async def show(self, **props: Any) -> None:
        """Render the application with these properties."""
        await self.page.evaluate("props => window.show(props)", props)

    async def until(self, condition: str, argument: Any = None) -> None:
        """Wait until the condition holds in the page; else say what the page shows."""
        try:
            await self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE_MS)
        except PlaywrightTimeoutError:
            shown = await self.page.evaluate("[document.body.innerText, window.seen]")
            pytest.fail(f"{condition} ({argument}): {shown}")

    async def text(self, wanted: str) -> None:
        """Wait until the stream's element shows this text."""
        condition = "wanted => document.getElementById('stream')?.textContent.trim() === wanted"
        await self.until(condition, wanted)

    async def seen(self, name: str) -> Any:
        """Return what the page has counted."""
        return await self.page.evaluate("name => window.seen[name]", name)

    async def publish(self, symbol: str, *values: int) -> None:
        """Publish values, in order."""
        for value in values:
            assert (await self._relay.publish(f"prices.{symbol}", value)).status_code == 200


@pytest_asyncio.fixture(loop_scope="session")
async def app(browser: Browser, relay: Relay, script: str) -> AsyncIterator[App]:
    """A page of the relay's origin with a session; nothing is rendered yet."""
    context = await browser.new_context(bypass_csp=True)
    await context.add_cookies([{"name": "access-token", "value": relay.session(), "url": relay.url}])
    page = await context.new_page()
    # any answer makes a page of this origin: one that Playwright makes up has no right to call a local address
    await page.goto(relay.url + "/client/relay-client.js")
    await page.evaluate("document.body.replaceChildren()")
    await page.add_script_tag(content=script)
    yield App(page, relay)
    await context.close()


async def test_prices_arrive_with_nothing_set_and_one_socket_however_often_the_page_changes(app: App) -> None:
    """Two hundred mounts, unmounts and lists of symbols cost one token and one socket, and leave no subscription."""
    await app.publish("BTC-USD", 1)
    await app.publish("ETH-USD", 2)
    await app.show(stream={"symbols": ["ETH-USD", "BTC-USD"]}, ones=["BTC-USD"])
    await app.text("ETH-USD=2 BTC-USD=1 open")
    for turn in range(MOUNTS // 2):
        await app.show(ones=["BTC-USD"] if turn % 2 else [])
        await app.show(stream={"symbols": ["BTC-USD", f"S{turn}"]})
    await app.show(stream={"symbols": ["ETH-USD"]})
    await app.text("ETH-USD=2 open")
    await app.publish("ETH-USD", 3)
    await app.text("ETH-USD=3 open")
    assert (await app.seen("sockets"), await app.seen("requests")) == (1, 1)
    await app.show()
    await app.until("window.seen.open === 0")  # a second after the last hook
    await app.show(stream={"symbols": ["ETH-USD"]})
    await app.text("ETH-USD=3 open")
    assert (await app.seen("sockets"), await app.seen("errors")) == (2, [])


async def test_prices_are_another_object_once_a_frame_at_most(app: App) -> None:
    """A burst of hundreds of values makes as many renders as the screen can show, and the last value is shown."""
    await app.show(stream={"symbols": ["BTC-USD", "ETH-USD"], "interval_ms": 0})
    for value in range(100, 200):
        await app.publish("BTC-USD", value)
        await app.publish("ETH-USD", value)
    await app.text("BTC-USD=199 ETH-USD=199 open")
    frames = await app.seen("identities")
    assert len(frames) == len(set(frames)) > 1
    stream = "JSON.stringify(window.stream)"
    before = await app.page.evaluate(f"[window.kept = window.stream.prices, {stream}][1]")
    await app.show(stream={"symbols": ["ETH-USD", "BTC-USD", "BTC-USD"], "interval_ms": 0})
    assert await app.page.evaluate(f"window.stream.prices['BTC-USD'] === window.kept['BTC-USD'] && {stream}")
    assert '"stale":false' in before


async def test_a_price_renders_only_for_its_own_symbol(app: App) -> None:
    """A table of a thousand rows renders one row for one price."""
    await app.publish("BTC-USD", 5)
    await app.show(ones=["BTC-USD", "ETH-USD"])
    await app.until("document.querySelector('[title=BTC-USD]').textContent === '5'")
    await app.publish("ETH-USD", 6)
    await app.until("document.querySelector('[title=ETH-USD]').textContent === '6'")
    renders = (await app.seen("renders"))["BTC-USD"]
    for value in (7, 8, 9):
        await app.publish("ETH-USD", value)
        await app.until(f"document.querySelector('[title=ETH-USD]').textContent === '{value}'")
    assert (await app.seen("renders"))["BTC-USD"] == renders
    assert (await app.seen("renders"))["ETH-USD"] >= 4


async def test_all_hooks_show_one_moment_while_a_transition_renders(app: App) -> None:
    """A price that changes between two slices of a concurrent render is not half on the screen."""
    await app.publish("BTC-USD", 1)
    await app.show(stream={"symbols": ["BTC-USD"]}, many=True)
    await app.text("BTC-USD=1 open")
    await app.page.evaluate("window.showMany(40)")
    for value in range(2, 12):
        await app.page.evaluate("window.again()")
        await app.publish("BTC-USD", value)
    await app.until(
        "[...document.querySelectorAll('.one')].filter(one => one.textContent === '11').length === 40"
    )
    assert await app.seen("torn") == 0


async def test_a_page_that_a_server_rendered_is_hydrated_without_a_complaint(app: App) -> None:
    """The server's page has no prices and opens nothing; the first client render is equal, and then prices come."""
    await app.publish("BTC-USD", 4)
    rendered = await app.page.evaluate(
        "window.hydrate({ stream: { symbols: ['BTC-USD'] }, provider: { endpoint: 'prices' } })"
    )
    assert rendered == {"html": '<p id="stream">connecting </p>', "requests": 0}
    await app.text("BTC-USD=4 open")
    assert await app.seen("errors") == []


async def test_a_refused_symbol_is_an_error_and_the_others_go_on(app: App) -> None:
    """A name that the token does not allow is told with its channel; toChannel may lead elsewhere."""
    await app.publish("BTC-USD", 4)
    await app.page.evaluate(
        """window.show({ provider: { toChannel: (symbol) => symbol === 'X' ? 'orders.X' : `prices.${symbol}` },
                         stream: { symbols: ['BTC-USD', 'X'] } })"""
    )
    await app.text("BTC-USD=4 open forbidden")
    assert await app.page.evaluate("[window.stream.error.channel, window.stream.stale]") == ["orders.X", True]


async def test_no_symbol_is_no_connection(app: App) -> None:
    """An empty list is `closed` at once, shows the state of another hook's connection, and is `closed` after that."""
    await app.publish("BTC-USD", 4)
    await app.show(stream={"symbols": []})
    await app.text("closed")
    await app.show(stream={"symbols": []}, ones=["BTC-USD"])
    await app.text("open")
    await app.show(stream={"symbols": []})
    await app.text("closed")
    assert (await app.seen("sockets"), await app.seen("errors")) == (1, [])


async def test_a_server_renders_in_node(project: Project) -> None:
    """renderToString needs no window, and opens no connection. Symbols that are none throw at once."""
    (project.folder / "server.js").write_text(NODE)
    wanted = "[{},&quot;connecting&quot;,true,null,&quot;none&quot;]"
    assert project.run("node", "server.js").splitlines() == [wanted, *MISTAKES]
