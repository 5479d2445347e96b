"""relay-client.js against a scripted relay: what a token request may be answered, and what the client makes of it."""

from typing import Any

import pytest

from tests.support.chromium import require_playwright
from tests.support.client_cases import MAX_JITTER_S, REFUSALS, RETRY_AFTER
from tests.support.compression_ways import way
from tests.support.scripted_relay import ScriptedRelay, Tab

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

_START = """
async (compress) => {
  const { createStream, fetchToken } = await import('/client/relay-client.js');
  window.stream?.close();
  const getToken = fetchToken({ endpoint: 'prices', channels: ['prices.>'] });
  window.stream = createStream({ getToken, compress });
  window.stream.on('state', (value) => window.report(['state', value]));
}
"""


async def issue(tab: Tab, *answers: dict[str, Any]) -> list[Any]:
    """Answer token requests in this order, the last for all later ones; returns the list of what was asked."""
    asked: list[Any] = []

    async def answer(route: Any) -> None:
        asked.append(route.request.post_data_json)
        await route.fulfill(**answers[min(len(asked), len(answers)) - 1])

    await tab.page.unroute_all()
    await tab.page.route("**/auth/ws-token", answer)
    return asked


async def outcome(tab: Tab) -> dict[str, Any]:
    """Return the first state after the token request."""
    while (change := await tab.next("state"))["state"] in {"connecting", "closed"}:
        pass
    found: dict[str, Any] = change
    return found


@pytest.mark.plain_only("No connection is opened.")
async def test_only_a_relays_own_refusal_stops_the_stream_and_its_retryable_is_obeyed(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A proxy answers 404, or a page with status 200, while a deployment runs. A stopped page stays dark after it."""
    for case in REFUSALS:
        await issue(tab, {"status": case.status, "content_type": case.content_type, "body": case.body})
        await tab.page.evaluate(_START, way.compressed)
        change = await outcome(tab)
        assert change["state"] == ("stopped" if case.is_final else "waiting"), case.name
        assert change["status"] == case.status, case.name
        assert change["reason"], case.name


async def test_a_proxys_answer_is_followed_by_another_request(tab: Tab, relay: ScriptedRelay) -> None:
    """After a back-off, with the same question; the next good answer connects."""
    proxy = {"status": 404, "content_type": "text/html", "body": "<h1>default backend</h1>"}
    page = {"status": 200, "content_type": "text/html", "body": "<h1>Sign in to the network</h1>"}
    good = {"status": 200, "json": {"wsToken": "from-the-issuer", "endpoint": relay.endpoint}}
    asked = await issue(tab, proxy, page, good)
    await tab.page.evaluate(_START, way.compressed)
    for status in (404, 200):
        change = await outcome(tab)
        assert change["status"] == status
        assert change["reason"] == f"The answer {status} is not a relay's."
        await tab.wait_out(change)
    assert (await relay.accept()).offered == "relay.v1, bearer.from-the-issuer"
    assert asked == [{"endpoint": "prices", "channels": ["prices.>"]}] * 3


@pytest.mark.plain_only("No connection is opened.")
async def test_retry_after_is_waited_for_with_some_jitter_and_never_longer_than_five_minutes(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A wrong header must not make a page wait for a day. A timer above 2^31 ms would fire at once, again and again."""
    refusal = {"code": "rate_limited", "message": "Slow down.", "retryable": True}
    for case in RETRY_AFTER:
        asked = await issue(tab, {"status": 429, "headers": {"retry-after": case.header}, "json": refusal})
        await tab.page.evaluate(_START, way.compressed)
        change = await outcome(tab)
        assert (change["status"], change["reason"]) == (429, "rate_limited")
        told_ms = (case.wait_s or 0) * 1000
        assert told_ms <= change["retryInMs"] <= told_ms + MAX_JITTER_S * 1000, case.header
        await tab.clock.run_for(max(0, int(change["retryInMs"]) - 1))
        assert len(asked) == 1, case.header
        await tab.clock.run_for(2)
        assert (await outcome(tab))["state"] == "waiting"
        assert len(asked) == 2, case.header


async def test_a_token_function_that_throws_is_called_again_and_the_state_says_why(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Whatever it throws, or returns in place of a token."""
    await tab.page.evaluate(
        """async ([endpoint, compress]) => {
          const { createStream } = await import('/client/relay-client.js');
          const results = [
            () => { throw TypeError('Failed to fetch'); },
            () => Promise.reject('offline'),
            () => Promise.reject(),
            () => undefined,
            () => ({ wsToken: 'without an endpoint' }),
            () => ({ endpoint }),
            () => Promise.reject({ status: 401, retryAfterMs: 'soon' }),
            () => ({ wsToken: 'token-1', endpoint }),
          ];
          window.stream = createStream({ getToken: () => results.shift()(), compress });
          window.stream.on('state', (value) => window.report(['state', value]));
        }""",
        [relay.endpoint, way.compressed],
    )
    reasons = []
    for _ in range(7):
        change = await outcome(tab)
        assert change["state"] == "waiting"
        reasons.append(change["reason"])
        await tab.wait_out(change)
    nothing = "getToken returned no token and endpoint."
    assert reasons[:6] == ["Failed to fetch", "offline", "undefined", nothing, nothing, nothing]
    assert (await relay.accept()).offered.endswith("token-1")


async def test_a_token_function_can_stop_the_stream(tab: Tab, relay: ScriptedRelay) -> None:
    """With an error whose `retryable` is false, as a relay's refusal has it."""
    await tab.start(relay)
    await tab.page.evaluate("window.refusal = { status: 401, code: 'logged_out', retryable: false }")
    await (await relay.accept()).close(1006)
    await tab.wait_out(await tab.state("waiting"))
    stopped = {"state": "stopped", "status": 401, "reason": "logged_out", "signedOut": True}
    assert await tab.state("stopped") == stopped


@pytest.mark.plain_only("No connection is opened.")
async def test_an_issuer_that_does_not_answer_is_given_up_and_asked_again(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Ten seconds are enough for a token."""
    await tab.page.evaluate(
        """async () => {
          const { createStream } = await import('/client/relay-client.js');
          window.stream = createStream({ getToken: () => new Promise(() => {}) });
          window.stream.on('state', (value) => window.report(['state', value]));
        }"""
    )
    await tab.state("connecting")
    await tab.clock.run_for(10_000)
    assert (await tab.state("waiting"))["reason"] == "The issuer does not answer."


async def test_upgrades_that_a_proxy_refuses_are_tried_again(tab: Tab, relay: ScriptedRelay) -> None:
    """A browser does not show the answer. Only close codes are final, and a refused upgrade has none."""
    await tab.start(relay)
    peer = await relay.accept()
    for case in REFUSALS:
        relay.refusing, relay.refusal = 1, (case.status, case.content_type, case.body)
        await peer.close(1012)
        await tab.wait_out(await tab.state("waiting"))
        change = await tab.state("waiting")
        assert change["code"] == 1006, case.name
        await tab.wait_out(change)
        peer = await relay.accept()
