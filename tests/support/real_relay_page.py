"""A page that follows a channel of a real relay, with its clock stopped."""

from typing import Any

from playwright.async_api import Page

from tests.support.relay_process import Relay
from tests.support.scripted_relay import Tab

BTC = "trades.BTC-USD"

START = """
async ({ endpoint, channels, url, follow, sameToken, transports, workMs = 0, interval_ms = 0 }) => {
  const { createStream, fetchToken } = await import('/client/relay-client.js');
  const fetched = fetchToken({ endpoint, channels });
  let kept;
  const again = async (attempt) => (kept ??= await fetched(attempt));
  window.forget = () => { kept = undefined; };
  window.stream = createStream({ getToken: sameToken ? again : fetched, url, transports });
  for (const event of ['state', 'silence', 'welcome', 'error', 'stale', 'live', 'reconnect', 'refreshed'])
    window.stream.on(event, (value) => window.report([event, value]));
  const tell = (kind) => (value) => window.report([kind, value]);
  const read = (value) => {
    tell('value')(value);
    for (const end = performance.now() + workMs; performance.now() < end; );
  };
  window.follow = () => {
    const handlers = { onSnapshot: read, onUpdate: read, onGap: tell('gap') };
    window.leave = window.stream.subscribe(follow, { interval_ms, ...handlers });
  };
  window.follow();
}
"""


async def open_page(page: Page, relay: Relay, **options: Any) -> Tab:
    """Open a page of the relay's origin with a session, its clock stopped, and follow a channel."""
    tab = Tab(page=page)
    await page.context.add_cookies([{"name": "access-token", "value": relay.session(), "url": relay.url}])
    await page.expose_function("report", lambda event: tab.events.put_nowait(tuple(event)))
    await page.clock.install()
    # any answer makes a page of this origin; its content policy, which lets nothing run, is not what is tested here
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Page.setBypassCSP", {"enabled": True})
    await page.goto(relay.url + "/client/relay-client.js")
    await page.clock.pause_at("2040-01-01T00:00:00Z")
    if "workMs" in options:
        await page.clock.resume()  # a stopped clock shows no work
    await page.evaluate(START, {"endpoint": "trades", "follow": BTC} | options)
    return tab


async def publish(relay: Relay, *numbers: int, channel: str = BTC) -> None:
    """Publish numbers, in order."""
    for number in numbers:
        answer = await relay.publish(channel, number)
        assert answer.status_code == 200


async def values(tab: Tab, count: int) -> list[int]:
    """The next values that the reader gets, with no gap between them."""
    frames = [await tab.next("value", "gap") for _ in range(count)]
    return [frame["data"] for frame in frames]


async def come_back(tab: Tab) -> None:
    """Let the waits pass until the connection is open again."""
    while (change := await tab.next("state"))["state"] != "open":
        if change["state"] == "waiting":
            await tab.wait_out(change)
