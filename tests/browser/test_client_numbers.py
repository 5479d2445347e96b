"""relay-client.js against a scripted relay: numbers from the server that become timers of the page.

A browser fires a timer above 2^31 ms at once. So a number that is too large is as harmful as one that is no number.
"""

from typing import Any

import pytest

from tests.support.chromium import require_playwright
from tests.support.client_cases import MILLISECONDS, REFUSED_REQUESTS, RefusedRequest
from tests.support.scripted_relay import Peer, ScriptedRelay, Tab

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO_NUMBERS: tuple[Any, ...] = (None, "3000", "soon", [1000], {}, True)
CASES = [(case.ms, round(case.wait_s * 1000)) for case in MILLISECONDS]
BTC = "prices.BTC-USD"


async def start(tab: Tab, relay: ScriptedRelay) -> Peer:
    """Open a stream whose random waits are the longest possible, and whose heartbeats do not matter."""
    await tab.start(relay, follow=BTC)
    await tab.page.evaluate("Math.random = () => 0.999999")
    return await welcomed(tab, relay, 300_000)


async def welcomed(tab: Tab, relay: ScriptedRelay, heartbeat_ms: Any) -> Peer:
    """Welcome the next connection."""
    peer = await relay.accept()
    await peer.welcome(heartbeat_ms=heartbeat_ms)
    await tab.state("open")
    return peer


async def tokens_after(tab: Tab, wait_ms: int) -> list[int]:
    """Return how many tokens were requested just before `wait_ms` and just after it."""
    counts = []
    for step in (max(0, wait_ms - 2), 4):
        await tab.clock.run_for(step)
        counts.append(await tab.page.evaluate("tokens"))
    return counts


async def test_the_delay_of_a_restart_is_at_most_five_minutes(tab: Tab, relay: ScriptedRelay) -> None:
    """What is no number counts as no delay: then the client backs off."""
    peer = await start(tab, relay)
    for delay_ms, wait_ms in [*CASES, *((value, 500) for value in NO_NUMBERS)]:
        await peer.send({"type": "reconnect", "delay_ms": delay_ms})
        await peer.close(1012)
        change = await tab.state("waiting")
        assert round(change["retryInMs"]) == wait_ms, delay_ms
        await tab.wait_out(change)
        peer = await welcomed(tab, relay, 300_000)
        await tab.clock.run_for(10_000)  # a good connection resets the back-off


async def test_a_refresh_comes_in_the_first_half_of_what_is_left_and_of_five_minutes(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """What is no number counts as ten seconds."""
    peer = await start(tab, relay)
    for number, (expires_in_ms, left_ms) in enumerate(
        [*CASES, *((value, 10_000) for value in NO_NUMBERS)], start=1
    ):
        await peer.send({"type": "token_expiring", "expires_in_ms": expires_in_ms})
        await tab.next("token_expiring")
        before = [number + (left_ms == 0), number + 1]
        assert await tokens_after(tab, left_ms // 2) == before, expires_in_ms
        frame = await peer.next()
        await peer.send({"type": "refreshed", "id": frame["id"], "expires_at": 1})
        await tab.next("refreshed")


async def test_a_refused_refresh_waits_at_most_five_minutes_and_at_least_the_back_off(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A server that answers "again at once" without end does not get a request for each answer."""
    refused = {"type": "error", "code": "unavailable", "message": "", "retryable": True}
    for retry_after_ms, wait_ms in [*CASES, *((value, 500) for value in NO_NUMBERS)]:
        await tab.page.evaluate("window.stream?.close()")
        peer = await start(tab, relay)
        await peer.send({"type": "token_expiring", "expires_in_ms": 2})
        await tab.next("token_expiring")
        await tab.clock.run_for(1)
        frame = await peer.next()
        await peer.send(refused | {"id": frame["id"], "retry_after_ms": retry_after_ms})
        await tab.next("error")
        assert await tokens_after(tab, max(500, wait_ms)) == [2, 3], retry_after_ms


@pytest.mark.parametrize("refusal", REFUSED_REQUESTS, ids=lambda refusal: refusal.code)
async def test_a_refused_subscription_waits_at_most_five_minutes(
    tab: Tab, relay: ScriptedRelay, refusal: RefusedRequest
) -> None:
    """And at least as long as two changes of the page do; what is no number counts as that."""
    peer = await start(tab, relay)
    cases = [*CASES, *((value, 250) for value in NO_NUMBERS)]
    for number, (retry_after_ms, wait_ms) in enumerate(cases):
        await tab.clock.run_for(250)
        await tab.page.evaluate("(name) => { follow(name); }", f"prices.{number}")
        await tab.clock.run_for(1)
        asked = await peer.next()
        await peer.send(refusal.frame(asked["id"], retry_after_ms))
        await peer.send({"type": "heartbeat", "ts": 1})
        await tab.next("heartbeat")
        await tab.clock.run_for(max(250, wait_ms) - 3)
        await tab.page.evaluate("stream.ping()&&0")
        assert (await peer.next())["type"] == "ping", retry_after_ms
        await tab.clock.run_for(4)
        again = await peer.next()
        assert again["channels"] == asked["channels"], retry_after_ms
        acknowledged = {"type": "subscribed", "id": again["id"], "channels": [], "rejected": []}
        await peer.send(acknowledged)  # otherwise a refusal without an id would be about this one too
        await tab.next("subscribed")


async def test_a_heartbeat_interval_is_at_most_five_minutes(tab: Tab, relay: ScriptedRelay) -> None:
    """A connection is silent after one and a half intervals. What is no interval counts as five seconds."""
    for heartbeat_ms, interval_ms in [*CASES, *((value, 5000) for value in NO_NUMBERS)]:
        await tab.page.evaluate("window.stream?.close()")
        await tab.start(relay)
        await welcomed(tab, relay, heartbeat_ms)
        silent_ms = 3 * (interval_ms or 5000) // 2
        await tab.clock.run_for(silent_ms - 1)
        assert "silence" not in tab.rest(), heartbeat_ms
        await tab.clock.run_for(2)
        assert await tab.next("silence") is True, heartbeat_ms
