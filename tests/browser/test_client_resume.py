"""relay-client.js against a scripted relay: every message of a `stream` channel, or an honest gap."""

import json
from typing import Any

import pytest

from tests.support.chromium import require_playwright
from tests.support.scripted_relay import Peer, ScriptedRelay, Tab

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

BTC = "trades.BTC-USD"
ETH = "trades.ETH-USD"


def snapshot(seq: int, *, epoch: str = "e1", channel: str = BTC) -> dict[str, Any]:
    """A snapshot whose data is its seq."""
    return {"type": "snapshot", "channel": channel, "epoch": epoch, "seq": seq, "ts": 1, "data": seq}


def updates(*seqs: int, channel: str = BTC) -> list[dict[str, Any]]:
    """Updates whose data is their seq."""
    return [{"type": "update", "channel": channel, "seq": seq, "ts": 1, "data": seq} for seq in seqs]


def ack(
    *channels: str, id: int | None = None, epoch: str = "e1", seq: int = 5, recovered: bool = False
) -> dict[str, Any]:
    """A `subscribed` for channels and patterns of a `stream` endpoint."""
    items: list[dict[str, Any]] = []
    for channel in channels:
        item = {"channel": channel, "mode": "stream", "interval_ms": 0}
        exact = {"epoch": epoch, "seq": seq, "state": "live", "recovered": recovered}
        items.append(item | ({"matches": 1} if "*" in channel else exact))
    return {"type": "subscribed", "channels": items, "rejected": []} | ({} if id is None else {"id": id})


async def follow(tab: Tab, relay: ScriptedRelay, name: str = BTC, *channels: str) -> Peer:
    """Start a stream that follows `name` and has had message 5 of `channels`, by default of BTC."""
    await tab.start(relay, follow=name)
    peer = await relay.accept()
    await peer.welcome(heartbeat_ms=600_000)
    await peer.send(ack(name), *(snapshot(5, channel=channel) for channel in channels or (BTC,)))
    for _ in channels or (BTC,):
        assert (await tab.next("onSnapshot"))["seq"] == 5
        assert (await tab.next("onStatus"))["state"] == "live"
    return peer


async def come_back(tab: Tab, relay: ScriptedRelay, peer: Peer, code: int = 1006) -> Peer:
    """Lose the connection and get the next one to `open`."""
    await peer.close(code)
    await tab.wait_out(await tab.state("waiting"))
    peer = await relay.accept()
    await peer.welcome(heartbeat_ms=600_000)
    await tab.state("open")
    return peer


async def seqs(tab: Tab, count: int) -> list[int]:
    """The seqs of the next values that the reader gets."""
    return [(await tab.next("onSnapshot", "onUpdate"))["seq"] for _ in range(count)]


async def test_a_reconnect_resumes_behind_the_last_message_and_loses_none(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """By frame, because a URL can't say where; what comes twice is dropped."""
    peer = await come_back(tab, relay, await follow(tab, relay))
    assert peer.query == {}
    asked = await peer.next()
    assert (asked["type"], asked["channels"]) == ("subscribe", [BTC])
    assert asked["since"] == {BTC: {"epoch": "e1", "seq": 5}}
    await peer.send(ack(BTC, id=asked["id"], seq=8, recovered=True), *updates(6, 7, 7, 5, 8, 9))
    assert await seqs(tab, 4) == [6, 7, 8, 9]
    await peer.send(*updates(10))
    assert await tab.next("onUpdate", "onGap", "onSnapshot") == updates(10)[0]


async def test_a_resume_that_missed_nothing_is_live_with_its_ack(tab: Tab, relay: ScriptedRelay) -> None:
    """Nothing was published meanwhile: the value shown is the newest, and no frame will come to say so."""
    peer = await come_back(tab, relay, await follow(tab, relay))
    await peer.send(ack(BTC, id=(await peer.next())["id"], recovered=True))
    assert await tab.next("onStatus", "onGap") == {"channel": BTC, "state": "live"}


async def test_messages_that_the_server_lost_are_a_gap_with_its_positions(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Then the channel begins again with a snapshot."""
    peer = await come_back(tab, relay, await follow(tab, relay))
    await peer.send(ack(BTC, id=(await peer.next())["id"], seq=90), snapshot(90), *updates(91))
    assert await tab.next("onGap", "onSnapshot") == {
        "channel": BTC,
        "since": {"epoch": "e1", "seq": 5},
        "epoch": "e1",
        "seq": 90,
    }
    assert await seqs(tab, 2) == [90, 91]


async def test_a_jump_is_asked_for_again_on_the_same_connection(tab: Tab, relay: ScriptedRelay) -> None:
    """Nothing of a `stream` channel is skipped silently, and what follows the jump waits for its turn."""
    peer = await follow(tab, relay)
    await peer.send(*updates(6, 8, 9))
    assert await seqs(tab, 1) == [6]
    await peer.send({"type": "heartbeat", "ts": 1})
    await tab.next("heartbeat")
    await tab.clock.run_for(250)
    left, asked = await peer.next(), await peer.next()
    assert (left["type"], left["channels"]) == ("unsubscribe", [BTC])
    assert asked["since"] == {BTC: {"epoch": "e1", "seq": 6}}
    await peer.send(*updates(10), ack(BTC, id=asked["id"], seq=10, recovered=True), *updates(7, 8, 9, 10, 11))
    assert await seqs(tab, 5) == [7, 8, 9, 10, 11]
    assert await tab.page.evaluate("tokens") == 1


async def test_channels_of_a_pattern_resume_by_their_names_which_are_left_again(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Only exact names can be resumed; they come before the pattern, which would begin them with a snapshot."""
    peer = await come_back(tab, relay, await follow(tab, relay, "trades.*", BTC, ETH))
    asked, pattern = await peer.next(), await peer.next()
    assert asked["channels"] == [BTC, ETH]
    assert asked["since"].keys() == {BTC, ETH}
    assert pattern["channels"] == ["trades.*"]
    await peer.send(ack(BTC, ETH, id=asked["id"], seq=6, recovered=True), *updates(6))
    await peer.send(ack("trades.*", id=pattern["id"]), *updates(6, channel=ETH))
    assert await seqs(tab, 2) == [6, 6]
    await tab.clock.run_for(250)
    left = await peer.next()
    assert (left["type"], left["channels"]) == ("unsubscribe", [BTC, ETH])


async def test_unrequested_channels_do_not_disturb_the_resumption(tab: Tab, relay: ScriptedRelay) -> None:
    """A token for exact channels subscribes to them by itself, which resumes nothing: they are left first."""
    peer = await come_back(tab, relay, await follow(tab, relay))
    early = await peer.next()
    await peer.send(ack(BTC, seq=8), snapshot(8), ack(BTC, id=early["id"], seq=8), *updates(9))
    left, asked = await peer.next(), await peer.next()
    assert (left["type"], left["channels"]) == ("unsubscribe", [BTC])
    assert asked["since"] == {BTC: {"epoch": "e1", "seq": 5}}
    await peer.send(ack(BTC, id=asked["id"], seq=9, recovered=True), *updates(6, 7, 8, 9, 10))
    kept = [await tab.next("onSnapshot", "onUpdate", "onGap") for _ in range(5)]
    assert kept == updates(6, 7, 8, 9, 10)


async def test_a_thousand_channels_resume_within_the_servers_frames_a_second(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A burst of 20 and then 10 a second, or the server would close for it, again at every attempt."""
    channels = [f"trades.S{number}" for number in range(1000)]
    peer = await come_back(tab, relay, await follow(tab, relay, "trades.*", *channels))
    asked = [await peer.next() for _ in range(13)]
    assert [frame["type"] for frame in asked] == ["subscribe"] * 13
    assert len({name for frame in asked for name in frame.get("since", ())}) == 1000
    assert max(len(json.dumps(frame)) for frame in asked) < 16_384
    await tab.clock.run_for(1300)
    await tab.page.evaluate("stream.ping()&&0")
    assert (await peer.next())["type"] == "ping"  # and so nothing was sent before it
    await tab.clock.run_for(100)
    assert (await peer.next())["type"] == "unsubscribe"


async def test_a_new_epoch_is_a_gap_and_a_snapshot(tab: Tab, relay: ScriptedRelay) -> None:
    """How many of the old one are missing, nobody knows."""
    peer = await follow(tab, relay)
    await peer.send(snapshot(1, epoch="e2"), *updates(2))
    gap = await tab.next("onGap", "onSnapshot")
    assert (gap["since"], gap["epoch"], gap["seq"]) == ({"epoch": "e1", "seq": 5}, "e2", 1)
    assert await seqs(tab, 2) == [1, 2]


async def test_a_relay_that_lost_everything_is_a_gap_before_the_first_new_value(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The ack says so with seq 0; the reader need not wait for the next publication to know."""
    peer = await come_back(tab, relay, await follow(tab, relay))
    await peer.send(ack(BTC, id=(await peer.next())["id"], epoch="", seq=0))
    assert (await tab.next("onGap"))["seq"] == 0
    await peer.send(snapshot(1, epoch="e2"))
    assert await tab.next("onSnapshot", "onGap") == snapshot(1, epoch="e2")


async def test_a_refused_resume_is_a_gap_and_a_refusal(tab: Tab, relay: ScriptedRelay) -> None:
    """The new token may allow less than the old one did."""
    peer = await come_back(tab, relay, await follow(tab, relay))
    refusal = {"channel": BTC, "code": "forbidden", "message": "Outside the token's scope."}
    asked = await peer.next()
    await peer.send({"type": "subscribed", "id": asked["id"], "channels": [], "rejected": [refusal]})
    assert await tab.next("onError") == refusal
    gap = await tab.next("onGap")
    assert (gap["since"], gap["epoch"], gap["seq"]) == ({"epoch": "e1", "seq": 5}, None, None)


async def test_a_gap_that_no_reader_handles_is_the_streams_event(tab: Tab, relay: ScriptedRelay) -> None:
    """Nothing is lost silently: without a listener for it, it is a warning on the console."""
    tab.page.on(
        "console",  # Chromium itself may complain there, as an error: that the page has no icon
        lambda message: (
            tab.events.put_nowait(("console", message.text)) if message.type == "warning" else None
        ),
    )
    await tab.start(relay)
    await tab.page.evaluate("(btc) => { stream.subscribe(btc, {}); }", BTC)
    peer = await relay.accept()
    await peer.welcome()
    await peer.send(ack(BTC), snapshot(5), snapshot(1, epoch="e2"))
    assert (await tab.next("console")).startswith("relay gap")
    await tab.page.evaluate("() => { stream.on('gap', (gap) => report(['gap', gap])); }")
    await peer.send(snapshot(1, epoch="e3"))
    assert (await tab.next("gap"))["epoch"] == "e3"


async def test_a_resume_that_came_too_fast_is_asked_for_again(tab: Tab, relay: ScriptedRelay) -> None:
    """From where it tore, and not from the newest value."""
    peer = await come_back(tab, relay, await follow(tab, relay))
    await peer.next()
    slow_down = {"type": "error", "code": "rate_limited", "message": "", "retryable": True}
    await peer.send(slow_down | {"retry_after_ms": 700}, {"type": "heartbeat", "ts": 1})
    await tab.next("heartbeat")
    await tab.clock.run_for(700)
    await peer.next()
    assert (await peer.next())["since"] == {BTC: {"epoch": "e1", "seq": 5}}


async def test_a_slow_consumer_comes_back_at_once_and_then_with_back_off(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """What it missed is kept for a short time only; a page that can't keep up must not spin."""
    peer = await follow(tab, relay)
    await peer.close(4008, "slow_consumer")
    waits = [await tab.state("waiting")]
    await tab.page.evaluate("Math.random = () => 0.999999")
    await tab.wait_out(waits[0])
    peer = await relay.accept()
    await peer.close(4008, "slow_consumer")
    waits.append(await tab.state("waiting"))
    assert [round(change["retryInMs"]) for change in waits] == [0, 1000]


async def test_nothing_subscribed_is_no_error_while_the_resume_is_on_its_way(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The URL named no channel on purpose. A page that wants nothing is told."""
    told = {"type": "error", "code": "nothing_subscribed", "message": "", "retryable": False}
    peer = await come_back(tab, relay, await follow(tab, relay))
    await peer.send(told, {"type": "heartbeat", "ts": 1})
    assert await tab.next("error", "heartbeat") == {"type": "heartbeat", "ts": 1}
    await tab.page.evaluate("stream.close()")
    await tab.start(relay)
    peer = await relay.accept()
    await peer.welcome()
    await peer.send(told)
    assert (await tab.next("error"))["code"] == "nothing_subscribed"


async def test_a_channel_that_is_left_and_followed_again_begins_with_a_new_snapshot(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Messages that were on their way when the client left are no value to begin with, and no gap follows them."""
    peer = await follow(tab, relay)
    await tab.page.evaluate("leave()")
    await tab.clock.run_for(250)
    assert (await peer.next())["type"] == "unsubscribe"
    await peer.send(*updates(6, 7), {"type": "heartbeat", "ts": 1})
    await tab.next("heartbeat")
    await tab.page.evaluate("(btc) => { follow(btc); }", BTC)
    await peer.send(*updates(8), {"type": "heartbeat", "ts": 1})
    await tab.next("heartbeat")
    await tab.clock.run_for(250)
    asked = await peer.next()
    assert asked["channels"] == [BTC]
    await peer.send(ack(BTC, id=asked["id"], seq=11), snapshot(11), *updates(12))
    kept = [await tab.next("onSnapshot", "onUpdate", "onGap", "error") for _ in range(2)]
    assert kept == [snapshot(11), *updates(12)]
