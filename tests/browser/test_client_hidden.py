"""relay-client.js against a scripted relay: a tab that nobody looks at."""

from typing import Any

import pytest

from tests.support.chromium import require_playwright
from tests.support.scripted_relay import Peer, ScriptedRelay, Tab

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHANNELS = ("prices.BTC-USD", "prices.ETH-USD")
BTC, ETH = CHANNELS
HEARTBEAT = {"type": "heartbeat", "ts": 1}


def frame(kind: str, channel: str, seq: int, **members: Any) -> dict[str, Any]:
    """A data frame whose data is its seq."""
    return {"type": kind, "channel": channel, "seq": seq, "ts": 1, "data": seq, **members}


async def follow(tab: Tab, relay: ScriptedRelay, mode: str) -> Peer:
    """Follow two channels of an endpoint in `mode`, each with its first value."""
    await tab.start(relay, follow="prices.*")
    peer = await relay.accept()
    await peer.welcome()
    ack = {"channel": "prices.*", "mode": mode, "interval_ms": 0, "matches": 2}
    await peer.send({"type": "subscribed", "channels": [ack], "rejected": []})
    for channel in CHANNELS:
        await peer.send(frame("snapshot", channel, 1, epoch="e1"))
        assert (await tab.next("onSnapshot"))["channel"] == channel
        assert (await tab.next("onStatus"))["state"] == "live"
    return peer


async def test_a_hidden_page_gets_each_channels_newest_value_once_it_is_visible(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Nobody looks: a page that works through every price would only drain the battery."""
    peer = await follow(tab, relay, "latest")
    await tab.hide(hidden=True)
    await peer.send(*(frame("update", BTC, seq) for seq in range(2, 50)), frame("update", ETH, 7), HEARTBEAT)
    assert await tab.next("onUpdate", "onSnapshot", "heartbeat") == HEARTBEAT
    await tab.hide(hidden=False)
    shown = [await tab.next("onUpdate", "onSnapshot") for _ in CHANNELS]
    assert shown == [frame("update", BTC, 49), frame("update", ETH, 7)]
    await peer.send(frame("update", ETH, 8))
    assert await tab.next("onUpdate", "onSnapshot") == frame("update", ETH, 8)


async def test_a_snapshot_among_the_skipped_values_stays_one(tab: Tab, relay: ScriptedRelay) -> None:
    """A new epoch does not follow from the value on the screen, also if its first value was skipped."""
    peer = await follow(tab, relay, "latest")
    await tab.hide(hidden=True)
    await peer.send(frame("snapshot", BTC, 1, epoch="e2"), frame("update", BTC, 2), HEARTBEAT)
    await tab.next("heartbeat")
    await tab.hide(hidden=False)
    assert await tab.next("onUpdate", "onSnapshot") == frame("snapshot", BTC, 2, epoch="e2")


async def test_a_reader_in_a_hidden_page_gets_the_value_once(tab: Tab, relay: ScriptedRelay) -> None:
    """The value that waits is the same for all, and duplicates never arrive."""
    peer = await follow(tab, relay, "latest")
    await tab.hide(hidden=True)
    await peer.send(frame("update", BTC, 2), HEARTBEAT)
    await tab.next("heartbeat")
    await tab.page.evaluate("(btc) => { follow(btc, { onUpdate: (f) => report(['second', f]) }); }", BTC)
    assert (await tab.next("onSnapshot", "onUpdate", "second", "onStatus"))["state"] == "live"
    await tab.hide(hidden=False)
    assert (await tab.next("onSnapshot", "onUpdate"))["seq"] == 2
    assert (await tab.next("onSnapshot", "second"))["seq"] == 2


async def test_a_channel_is_live_only_after_its_newest_value_was_delivered(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The old value on the screen must not look current because a newer one has arrived."""
    peer = await follow(tab, relay, "latest")
    await tab.hide(hidden=True)
    await peer.close(1006)
    for _ in CHANNELS:
        assert (await tab.next("onStatus"))["state"] == "stale"
    await tab.wait_out(await tab.state("waiting"))
    peer = await relay.accept()
    await peer.welcome()
    await peer.send(frame("snapshot", BTC, 9, epoch="e1"), HEARTBEAT)
    assert await tab.next("onStatus", "onSnapshot", "heartbeat") == HEARTBEAT
    await tab.hide(hidden=False)
    assert (await tab.next("onStatus", "onSnapshot"))["seq"] == 9
    assert await tab.next("onStatus", "onSnapshot") == {"channel": BTC, "state": "live"}


async def test_messages_of_a_stream_channel_are_handed_on_in_a_hidden_page(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Every message means every message."""
    peer = await follow(tab, relay, "stream")
    await tab.hide(hidden=True)
    await peer.send(*(frame("update", BTC, seq) for seq in range(2, 6)))
    assert [(await tab.next("onUpdate"))["seq"] for _ in range(4)] == [2, 3, 4, 5]


async def test_timers_that_a_hidden_tab_holds_back_do_not_make_a_live_link_dead(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Browsers fire a hidden tab's timers once a minute, while frames arrive as ever."""
    peer = await follow(tab, relay, "latest")
    await tab.hide(hidden=True)
    for _ in range(3):
        # the timers that are due in this minute fire at its end, once, after the frames
        await peer.send(HEARTBEAT)
        await tab.next("heartbeat")
        await tab.clock.fast_forward(60_000)
        await peer.send(HEARTBEAT)
        assert await tab.next("silence", "state", "heartbeat") in (True, HEARTBEAT)
    assert await tab.page.evaluate("stream.state") == "open"


async def test_a_page_that_is_seen_again_comes_back_at_once(tab: Tab, relay: ScriptedRelay) -> None:
    """Who looks at it does not wait out a back-off that grew while nobody did; a told delay stands."""
    peer = await follow(tab, relay, "latest")
    await tab.hide(hidden=True)
    await tab.page.evaluate("Math.random = () => 0.999999; window.refusal = { status: 503 }")
    await peer.close(1006)
    for _ in range(5):
        await tab.wait_out(await tab.state("waiting"))
    assert (await tab.state("waiting"))["retryInMs"] > 10_000
    await tab.page.evaluate("window.refusal = null")
    await tab.hide(hidden=False)
    await tab.clock.run_for(500)
    peer = await relay.accept()
    await peer.welcome()
    await peer.send({"type": "reconnect", "delay_ms": 3000})
    await peer.close(1012)
    await tab.state("waiting")
    await tab.hide(hidden=False)
    await tab.clock.run_for(2999)
    assert await tab.page.evaluate("stream.state") == "waiting"
