"""The login session in the client: renewed in time, by one tab, and over in all tabs at once.

The issuer and the refresh route are the test's, the streams are real; the pages' clocks are stopped.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route

from tests.support.chromium import require_playwright
from tests.support.compression_ways import way
from tests.support.scripted_relay import ScriptedRelay, Tab

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED = {"status": 401, "json": {"code": "invalid_session", "message": "No session.", "retryable": False}}
NOT_FOUND = {"status": 404, "json": {"code": "not_found", "message": "Nothing here.", "retryable": False}}
BUSY = {"status": 503, "json": {"code": "unavailable", "message": "Later.", "retryable": True}}
LIFE_S = 100

_START = """
async (compress) => {
  const { createStream, fetchToken } = await import('/client/relay-client.js');
  const onSignedOut = (change) => window.report(['signedOut', change]);
  window.stream = createStream({ getToken: fetchToken(), onSignedOut, compress });
  window.stream.on('state', (value) => window.report(['state', value]));
}
"""


_NAME = "scoped-relay "
_LISTEN = f"""
() => {{ new BroadcastChannel('{_NAME}').onmessage = ({{ data }}) => window.report(['news', data.ended]); }}
"""
_UNLOCKED = f"() => navigator.locks.request('{_NAME}', () => true)"


def _life(left_s: int | None) -> dict[str, int]:
    return {} if left_s is None else {"session_expires_in": left_s, "session_lifetime": LIFE_S}


@dataclass
class Issuer:
    """Answers the pages' POST requests. The last answer of each list stays."""

    endpoint: str
    tokens: list[dict[str, Any]] = field(default_factory=list)
    users: list[dict[str, Any]] = field(default_factory=list)
    refreshes: list[dict[str, Any]] = field(default_factory=lambda: [{"status": 204}])
    asked: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    paths: list[str] = field(default_factory=list)

    def grant(self, left_s: int | None = None) -> dict[str, Any]:
        """Return an answer with a token, of a session that lives for so long still."""
        return {"status": 200, "json": {"wsToken": "token", "endpoint": self.endpoint, **_life(left_s)}}

    async def serve(self, context: BrowserContext) -> None:
        """Answer instead of the relay."""

        async def answer(route: Route) -> None:
            path = route.request.url.rpartition("/")[2]
            self.paths.append(path)
            self.asked.put_nowait(path)
            answers = {"ws-token": self.tokens, "refresh": self.refreshes, "me": self.users}.get(
                path, [{"status": 204}]
            )
            await route.fulfill(**(answers.pop(0) if len(answers) > 1 else answers[0]))

        await context.route("**/auth/*", answer)

    async def next(self) -> str:
        """Wait for the next request, and return the last part of its path."""
        async with asyncio.timeout(20):
            return await self.asked.get()


@pytest.fixture
def issuer(relay: ScriptedRelay) -> Issuer:
    """An issuer that gives tokens, and says nothing of the session."""
    found = Issuer(relay.endpoint)
    found.tokens.append(found.grant())
    return found


async def started(tab: Tab, issuer: Issuer) -> Tab:
    """Start the tab's stream."""
    await issuer.serve(tab.page.context)
    await tab.page.evaluate(_START, way.compressed)
    return tab


async def opened(tab: Tab, issuer: Issuer, relay: ScriptedRelay) -> Tab:
    """Start the tab's stream and let it open."""
    await started(tab, issuer)
    await (await relay.accept()).welcome(heartbeat_ms=300_000)
    await tab.state("open")
    assert await issuer.next() == "ws-token"
    return tab


@asynccontextmanager
async def another(page: Page, relay: ScriptedRelay) -> AsyncIterator[Tab]:
    """A second tab of the same browser profile, and so with the same clock."""
    tab = Tab(page=await page.context.new_page())
    await tab.page.expose_function("report", lambda event: tab.events.put_nowait(tuple(event)))
    await tab.page.goto(relay.origin + "/")
    yield tab
    await tab.page.close()


async def test_a_401_is_answered_by_one_refresh_and_one_more_request(
    tab: Tab, issuer: Issuer, relay: ScriptedRelay
) -> None:
    """A session whose access token is over goes on, and nobody has to log in."""
    issuer.tokens.insert(0, REFUSED)
    await started(tab, issuer)
    await (await relay.accept()).welcome()
    await tab.state("open")
    assert issuer.paths == ["ws-token", "refresh", "ws-token"]


@pytest.mark.parametrize(
    ("refresh", "paths"),
    [
        ({"status": 204}, ["ws-token", "refresh", "ws-token"]),
        (REFUSED, ["ws-token", "refresh"]),
        (NOT_FOUND, ["ws-token", "refresh"]),
        ({"status": 404, "body": "<h1>Not here</h1>"}, ["ws-token", "refresh"]),
    ],
    ids=["refused again", "no refresh token", "no such route", "a server without the route"],
)
async def test_a_session_that_can_not_be_renewed_ends_in_signed_out(
    tab: Tab, issuer: Issuer, refresh: dict[str, Any], paths: list[str]
) -> None:
    """The callback is called once, and nothing is asked again."""
    issuer.tokens[:] = [REFUSED]
    issuer.refreshes[:] = [refresh]
    await started(tab, issuer)
    change = {"status": 401, "reason": "invalid_session", "signedOut": True}
    assert await tab.state("stopped") == {"state": "stopped", **change}
    assert await tab.next("signedOut") == change
    await tab.clock.run_for(60_000)
    assert issuer.paths == paths
    assert tab.rest() == []


async def test_a_refresh_without_an_answer_ends_nothing(
    tab: Tab, issuer: Issuer, relay: ScriptedRelay
) -> None:
    """A backend that is away for a moment logs nobody out."""
    issuer.tokens[:] = [REFUSED, REFUSED, issuer.grant()]
    issuer.refreshes[:] = [BUSY, {"status": 204}]
    await started(tab, issuer)
    change = await tab.state("waiting")
    assert (change["status"], change["reason"]) == (503, "unavailable")
    await tab.wait_out(change)
    await (await relay.accept()).welcome()
    await tab.state("open")


async def test_one_visible_tab_renews_at_four_fifths_of_a_sessions_life(
    tab: Tab, issuer: Issuer, relay: ScriptedRelay
) -> None:
    """Two tabs make one refresh, at 80 of 100 seconds, and the next one 80 seconds later."""
    issuer.tokens[:] = [issuer.grant(LIFE_S)]
    await opened(tab, issuer, relay)
    async with another(tab.page, relay) as other:
        await opened(other, issuer, relay)
        for each in (tab, other):
            await each.page.evaluate(_LISTEN)
        await tab.clock.run_for(79_000)
        assert issuer.paths == ["ws-token"] * 2
        for _ in range(2):
            await tab.clock.run_for(1000)
            assert await issuer.next() == "refresh"
            for each in (tab, other):
                assert await each.next("news") is False
            await tab.page.evaluate(_UNLOCKED)  # the other one has had its turn
            await tab.clock.run_for(79_000)
        assert issuer.asked.empty()


async def test_a_hidden_tab_renews_nothing_and_a_tab_that_slept_renews_at_once(
    tab: Tab, issuer: Issuer, relay: ScriptedRelay
) -> None:
    """A laptop that was closed for an hour asks for nothing in its sleep."""
    issuer.tokens[:] = [issuer.grant(LIFE_S)]
    await opened(tab, issuer, relay)
    await tab.page.evaluate(_LISTEN)
    await tab.hide(hidden=True)
    await tab.clock.fast_forward(3_600_000)
    assert issuer.paths.count("refresh") == 0
    await tab.hide(hidden=False)
    while await issuer.next() != "refresh":
        pass
    assert await tab.next("news") is False  # the tab has the answer, and waits for the next renewal
    # the clock of a visible tab jumps: the computer slept, and its timers with it
    await tab.clock.fast_forward(3_600_000)
    while await issuer.next() != "refresh":
        pass


async def test_a_renewal_that_is_refused_signs_out(tab: Tab, issuer: Issuer, relay: ScriptedRelay) -> None:
    """The log-in is over: the page is told while its prices still flow, not in the middle of them."""
    issuer.tokens[:] = [issuer.grant(LIFE_S)]
    issuer.refreshes[:] = [BUSY, REFUSED]
    await opened(tab, issuer, relay)
    await tab.clock.run_for(81_000)
    assert await issuer.next() == "refresh"
    await tab.clock.run_for(16_000)
    assert await issuer.next() == "refresh"
    assert await tab.next("signedOut") == {"reason": "signed_out", "signedOut": True}


async def test_a_log_out_in_one_tab_reaches_the_others(
    tab: Tab, issuer: Issuer, relay: ScriptedRelay
) -> None:
    """All tabs share the cookies. A tab that has its token from a later log-in is not concerned."""
    await opened(tab, issuer, relay)
    async with another(tab.page, relay) as other:
        await opened(other, issuer, relay)
        await other.page.evaluate("import('/client/relay-client.js').then(({ logOut }) => logOut())")
        assert await issuer.next() == "logout"
        for each in (tab, other):
            assert (await each.next("signedOut"))["reason"] == "signed_out"
        await opened(tab, issuer, relay)
        old = f"new BroadcastChannel('{_NAME}').postMessage({{ ended: true, at: 1 }})"
        await other.page.evaluate(old)
        await other.page.evaluate("import('/client/relay-client.js').then(({ logOut }) => logOut())")
        assert (await tab.next("signedOut"))["reason"] == "signed_out"


_KEEP = """
async () => {
  const { keepSession } = await import('/client/relay-client.js');
  const report = (event) => (value) => window.report([event, value]);
  const start = () => keepSession({ onUser: report('user'), onSignedOut: report('signedOut') });
  start()(); // as StrictMode does
  window.stop = start();
}
"""


@pytest.mark.plain_only("No connection is opened.")
async def test_a_page_without_a_stream_keeps_its_session(tab: Tab, issuer: Issuer) -> None:
    """It learns who is logged in, renews at 80 of 100 seconds, and is told once of a log-out in another tab."""
    issuer.users[:] = [BUSY, {"status": 200, "json": {"user": "ann", **_life(LIFE_S)}}]
    await issuer.serve(tab.page.context)
    await tab.page.evaluate(_KEEP)
    async with asyncio.timeout(20):
        while issuer.paths != ["me", "me"]:
            await tab.clock.run_for(15_000)
    assert await tab.next("user") == "ann"
    await tab.page.evaluate(_LISTEN)
    for _ in range(2):
        await tab.clock.run_for(81_000)
        assert await tab.next("news") is False
    assert issuer.paths == ["me", "me", "refresh", "refresh"]
    for _ in range(2):
        await tab.page.evaluate("import('/client/relay-client.js').then(({ logOut }) => logOut())")
    assert await tab.next("signedOut") is None
    assert "signedOut" not in tab.rest()


@pytest.mark.plain_only("No connection is opened.")
async def test_a_page_without_a_session_is_told(tab: Tab, issuer: Issuer) -> None:
    """The route has tried the refresh cookie. A keeper that was stopped tells nothing."""
    issuer.users[:] = [REFUSED]
    await issuer.serve(tab.page.context)
    await tab.page.evaluate(_KEEP)
    assert await tab.next("signedOut") is None
    await tab.clock.run_for(60_000)
    assert issuer.paths == ["me"]


MISTAKES = {
    "createStream({})": "getToken must be a function.",
    "createStream({ getToken: '/auth/ws-token' })": "getToken must be a function.",
    "createStream({ getToken, onSignedOut: true })": "onSignedOut must be a function.",
    "createStream({ getToken, channels: [7] })": "subscribe needs channels.",
    "stream.subscribe()": "subscribe needs channels.",
    "stream.subscribe([])": "subscribe needs channels.",
    "stream.subscribe('a', { onUpdate: 'b' })": "onUpdate must be a function.",
    "stream.on('state')": "listener must be a function.",
}


@pytest.mark.plain_only("No connection is opened.")
async def test_mistakes_of_the_program_throw_at_once(tab: Tab) -> None:
    """They say what is missing, instead of a page that tries without an end."""
    found = await tab.page.evaluate(
        """async (calls) => {
          const { createStream } = await import('/client/relay-client.js');
          const getToken = () => new Promise(() => {});
          const stream = createStream({ getToken });
          const told = (call) => {
            try { Function('createStream', 'getToken', 'stream', call)(createStream, getToken, stream); }
            catch (error) { return `${error.name}: ${error.message}`; }
          };
          return calls.map(told);
        }""",
        list(MISTAKES),
    )
    assert found == [f"TypeError: {text}" for text in MISTAKES.values()]
