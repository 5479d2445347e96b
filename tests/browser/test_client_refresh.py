"""relay-client.js against a scripted relay: a connection outlives its token, and no token outlives its use."""

from typing import Any

import pytest

from tests.support.chromium import require_playwright
from tests.support.scripted_relay import Peer, ScriptedRelay, Tab

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

BTC = "prices.BTC-USD"
EXPIRING = {"type": "token_expiring", "expires_in_ms": 60_000}
REFUSED = {"type": "error", "code": "invalid_token", "message": "", "retryable": False}


async def expiring(tab: Tab, relay: ScriptedRelay, **options: Any) -> Peer:
    """Start a stream, and tell it that its connection ends in a minute."""
    await tab.start(relay, **options)
    peer = await relay.accept()
    await peer.welcome(heartbeat_ms=600_000)
    await tab.state("open")
    await tab.page.evaluate("Math.random = () => 0.999999")
    await peer.send(EXPIRING)
    await tab.next("token_expiring")
    return peer


async def test_a_warned_connection_is_refreshed_with_a_new_token_and_goes_on(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Each time that the server warns; the socket stays the same."""
    peer = await expiring(tab, relay, follow=BTC)
    for number in (2, 3):
        await tab.clock.run_for(30_000)
        frame = await peer.next()
        assert (frame["type"], frame["token"]) == ("refresh", f"token-{number}")
        await peer.send({"type": "refreshed", "id": frame["id"], "expires_at": 1}, EXPIRING)
        await tab.next("refreshed")
        await tab.next("token_expiring")
    assert tab.rest() == []


async def test_the_refresh_comes_at_a_random_moment_of_the_first_half_of_what_is_left(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """After a restart all connections are of one age, and would ask the issuer in one moment."""
    await expiring(tab, relay)
    await tab.clock.run_for(29_900)
    assert await tab.page.evaluate("tokens") == 1
    await tab.clock.run_for(100)
    assert await tab.page.evaluate("tokens") == 2


async def test_a_refused_refresh_is_told_and_tried_again_with_another_token(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The old end stands; there is time left, and the back-off sees to it that nobody is hammered."""
    peer = await expiring(tab, relay)
    await tab.clock.run_for(30_000)
    for wait_ms, number in ((500, 3), (1000, 4), (2000, 5)):
        frame = await peer.next()
        await peer.send(REFUSED | {"id": frame["id"]})
        assert (await tab.next("error"))["code"] == "invalid_token"
        await tab.clock.run_for(wait_ms)
        assert await tab.page.evaluate("[tokens, stream.state]") == [number, "open"]


async def test_a_refresh_that_was_too_fast_is_sent_again(tab: Tab, relay: ScriptedRelay) -> None:
    """The server did not look at it, and says so without an id."""
    peer = await expiring(tab, relay)
    await tab.clock.run_for(30_000)
    await peer.next()
    await peer.send(
        {"type": "error", "code": "rate_limited", "message": "", "retryable": True, "retry_after_ms": 700}
    )
    await tab.next("error")
    await tab.clock.run_for(700)
    assert (await peer.next())["token"] == "token-3"


async def test_an_issuer_that_is_away_is_asked_again_when_it_says(tab: Tab, relay: ScriptedRelay) -> None:
    """The connection is not to blame and goes on."""
    peer = await expiring(tab, relay)
    await tab.page.evaluate("window.refusal = { status: 503, code: 'unavailable', retryAfterMs: 4000 }")
    await tab.clock.run_for(30_000)
    assert await tab.next("error", "state") == {"code": "not_refreshed", "message": "unavailable"}
    await tab.page.evaluate("window.refusal = null")
    await tab.clock.run_for(3999)
    assert await tab.page.evaluate("tokens") == 1
    await tab.clock.run_for(501)
    assert (await peer.next())["token"] == "token-2"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_session_that_ended_lets_the_connection_live_to_its_end_and_then_stops(
    tab: Tab, relay: ScriptedRelay, status: int
) -> None:
    """A good socket is not thrown away, the issuer is not asked in vain, and its word counts at the end."""
    peer = await expiring(tab, relay, follow=BTC)
    await tab.page.evaluate(
        f"window.refusal = {{ status: {status}, code: 'invalid_session', retryable: false }}"
    )
    await tab.clock.run_for(30_000)
    assert await tab.next("error", "state") == {"code": "not_refreshed", "message": "invalid_session"}
    await tab.clock.run_for(29_000)
    await peer.send({"type": "snapshot", "channel": BTC, "epoch": "e1", "seq": 1, "ts": 1, "data": 1})
    assert (await tab.next("onSnapshot", "error", "state"))["seq"] == 1
    await peer.close(4001, "token_expired")
    change = await tab.state("waiting")
    assert change["code"] == 4001
    await tab.wait_out(change)
    assert (await tab.state("stopped"))["status"] == status


async def test_a_connection_that_ends_first_is_not_refreshed(tab: Tab, relay: ScriptedRelay) -> None:
    """The token for the next one is asked for once, and goes with the handshake."""
    peer = await expiring(tab, relay)
    await peer.close(1012)
    await tab.wait_out(await tab.state("waiting"))
    peer = await relay.accept()
    assert peer.offered.endswith("token-2")
    await peer.welcome(heartbeat_ms=600_000)
    await tab.state("open")
    await tab.clock.run_for(60_000)
    assert await tab.page.evaluate("tokens") == 2


async def test_a_channel_that_a_refresh_removes_is_stale_and_reported(tab: Tab, relay: ScriptedRelay) -> None:
    """A price that is not followed any more must not look like one that is stable."""
    peer = await expiring(tab, relay, follow=BTC)
    await peer.send({"type": "snapshot", "channel": BTC, "epoch": "e1", "seq": 1, "ts": 1, "data": 1})
    assert (await tab.next("onStatus"))["state"] == "live"
    await peer.send({"type": "unsubscribed", "channels": ["prices.*", BTC]})
    assert (await tab.next("onStatus"))["state"] == "stale"
    refusal = await tab.next("onError")
    assert (refusal["channel"], refusal["code"]) == (BTC, "forbidden")


@pytest.mark.parametrize("transport", ["subprotocol", "first_message"])
async def test_no_token_is_left_in_the_pages_memory(tab: Tab, relay: ScriptedRelay, transport: str) -> None:
    """Neither the one that opened the connection nor the one that refreshed it: a heap snapshot has neither."""
    await tab.start(relay, transports=[transport], follow=BTC)
    peer = await relay.accept()
    if transport == "first_message":
        await peer.next()
    await peer.welcome(heartbeat_ms=600_000)
    await tab.state("open")
    await peer.send(EXPIRING)
    await tab.next("token_expiring")
    await tab.clock.run_for(30_000)
    frame = await peer.next()
    await peer.send({"type": "refreshed", "id": frame["id"], "expires_at": 1})
    await tab.next("refreshed")

    session = await tab.page.context.new_cdp_session(tab.page)
    pieces: list[str] = []
    session.on("HeapProfiler.addHeapSnapshotChunk", lambda event: pieces.append(event["chunk"]))
    await session.send("HeapProfiler.enable")
    await session.send("HeapProfiler.collectGarbage")
    await session.send("HeapProfiler.takeHeapSnapshot", {"reportProgress": False})
    heap = "".join(pieces)
    assert "retryInMs" in heap  # of the client: the snapshot is one of this page
    assert "token-1" not in heap
    assert "token-2" not in heap
