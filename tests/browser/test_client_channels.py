"""relay-client.js against a scripted relay: subscriptions, duplicates, and telling old prices from live ones."""

from typing import Any

import pytest

from tests.support.chromium import require_playwright
from tests.support.client_cases import BROKEN_FRAMES
from tests.support.scripted_relay import Peer, ScriptedRelay, Tab
from tests.support.server_clocks import SCHEDULES, T0

require_playwright()

pytestmark = pytest.mark.asyncio(loop_scope="session")

BTC = "prices.BTC-USD"


def snapshot(
    seq: int, *, epoch: str = "e1", channel: str = BTC, ts: int = 1_790_000_000_000
) -> dict[str, Any]:
    """A snapshot whose data is its seq."""
    return {"type": "snapshot", "channel": channel, "epoch": epoch, "seq": seq, "ts": ts, "data": seq}


def update(seq: int, *, channel: str = BTC, ts: int = 1_790_000_000_000) -> dict[str, Any]:
    """An update whose data is its seq."""
    return {"type": "update", "channel": channel, "seq": seq, "ts": ts, "data": seq}


def data_of(event: dict[str, Any]) -> tuple[str, int]:
    """What a reader was given, in short."""
    return event["type"], event["data"]


async def follow(tab: Tab, relay: ScriptedRelay, channels: str = BTC, *, heartbeat_ms: int = 5000) -> Peer:
    """Start a stream that follows `channels` from its first connection on."""
    await tab.start(relay, follow=channels)
    peer = await relay.accept()
    assert peer.query == {"channels": [channels], "interval_ms": ["0"]}
    await peer.welcome(heartbeat_ms=heartbeat_ms)
    await tab.state("open")
    return peer


async def test_subscriptions_go_with_the_url_and_again_with_every_reconnect(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Nobody has to subscribe twice, and the first data needs no further round trip."""
    peer = await follow(tab, relay, "prices.*")
    for _ in range(2):
        assert peer.query == {"channels": ["prices.*"], "interval_ms": ["0"]}
        await peer.close(1012)
        await tab.wait_out(await tab.state("waiting"))
        peer = await relay.accept()
        await peer.welcome()
        await tab.state("open")


async def test_later_subscriptions_are_sent_as_frames_and_again_after_a_reconnect(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Each interval is a frame of its own; the fastest wish for a channel counts."""
    peer = await follow(tab, relay)
    await tab.page.evaluate(
        """(btc) => {
          follow(['prices.ETH-USD', btc], { interval_ms: 250 });
          window.end = follow('prices.SOL-USD');
        }""",
        BTC,
    )
    await tab.clock.run_for(250)
    frames = [await peer.next(), await peer.next()]
    assert {(tuple(f["channels"]), f["interval_ms"]) for f in frames} == {
        (("prices.ETH-USD",), 250),
        (("prices.SOL-USD",), 0),
    }
    await tab.page.evaluate("end()")
    await tab.clock.run_for(250)
    assert (await peer.next()).items() >= {"type": "unsubscribe", "channels": ["prices.SOL-USD"]}.items()
    await peer.close(1012)
    await tab.wait_out(await tab.state("waiting"))
    peer = await relay.accept()
    assert peer.query == {"channels": [BTC], "interval_ms": ["0"]}
    await peer.welcome()
    assert (await peer.next()).items() >= {"channels": ["prices.ETH-USD"], "interval_ms": 250}.items()


async def test_hundreds_of_subscriptions_in_one_turn_are_a_few_frames(tab: Tab, relay: ScriptedRelay) -> None:
    """A page of widgets stays below the server's frames a second and channels a frame."""
    peer = await follow(tab, relay)
    await tab.page.evaluate("() => { for (let i = 0; i < 500; i++) follow(`prices.S${i}`); }")
    await tab.clock.run_for(250)
    assert [len((await peer.next())["channels"]) for _ in range(6)] == [85] * 5 + [75]


async def test_leaving_and_coming_back_at_once_keeps_the_value_and_sends_nothing(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The server would not repeat its snapshot, so the client hands out the one it has."""
    peer = await follow(tab, relay)
    await peer.send(snapshot(1))
    await tab.next("onSnapshot")
    await tab.page.evaluate("(btc) => { follow(btc)(); follow(btc); }", BTC)
    assert data_of(await tab.next("onSnapshot")) == ("snapshot", 1)
    await tab.clock.run_for(1000)
    await tab.page.evaluate("stream.ping()&&0")
    assert (await peer.next())["type"] == "ping"


async def test_several_readers_of_a_channel_share_one_subscription(tab: Tab, relay: ScriptedRelay) -> None:
    """It is asked for once, at the fastest interval, slower again when that reader left, and left with the last."""
    peer = await follow(tab, relay)
    await tab.page.evaluate(
        "() => { window.ends = [500, 100, 500].map((ms) => follow('prices.ETH-USD', { interval_ms: ms })); }"
    )
    await tab.clock.run_for(250)
    await peer.send(snapshot(1, channel="prices.ETH-USD"))
    assert [(await tab.next("onSnapshot"))["channel"] for _ in range(3)] == ["prices.ETH-USD"] * 3
    asked = [await peer.next()]
    for ends in ("ends[1]()", "ends[0]()", "ends[2]()"):
        await tab.page.evaluate(f"() => {{ {ends}; }}")
        await tab.clock.run_for(250)
    asked += [await peer.next(), await peer.next()]
    assert [(f["type"], f["channels"], f.get("interval_ms")) for f in asked] == [
        ("subscribe", ["prices.ETH-USD"], 100),
        ("subscribe", ["prices.ETH-USD"], 500),
        ("unsubscribe", ["prices.ETH-USD"], None),
    ]


async def test_unrequested_channels_serve_later_readers_or_are_unsubscribed(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A token for exact channels subscribes to them by itself; the server would not repeat their snapshots."""
    await tab.start(relay)
    peer = await relay.accept()
    await peer.welcome()
    names = [BTC, "prices.ETH-USD"]
    acks = [{"channel": name, "mode": "latest", "epoch": "e1", "seq": 1, "state": "live"} for name in names]
    await peer.send({"type": "subscribed", "channels": acks, "rejected": []})
    await peer.send(*(snapshot(1, channel=name) for name in names), {"type": "heartbeat", "ts": 1})
    await tab.next("heartbeat")
    await tab.page.evaluate("(btc) => { follow(btc); }", BTC)
    assert data_of(await tab.next("onSnapshot")) == ("snapshot", 1)
    await tab.clock.run_for(250)
    frames = [await peer.next(), await peer.next()]
    assert [(f["type"], f["channels"]) for f in frames] == [
        ("unsubscribe", ["prices.ETH-USD"]),
        ("subscribe", [BTC]),
    ]


async def test_duplicates_are_dropped_by_epoch_and_seq(tab: Tab, relay: ScriptedRelay) -> None:
    """Arrival is at least once; a new epoch counts from one again."""
    peer = await follow(tab, relay)
    await peer.send(snapshot(5), update(5), update(4), update(6), update(6), snapshot(6), update(9))
    await peer.send(snapshot(1, epoch="e2"), update(1), update(2))
    seen = [data_of(await tab.next("onSnapshot", "onUpdate")) for _ in range(5)]
    assert seen == [("snapshot", 5), ("update", 6), ("update", 9), ("snapshot", 1), ("update", 2)]


async def test_a_pattern_gets_its_channels_and_no_others(tab: Tab, relay: ScriptedRelay) -> None:
    """`*` is one segment and a last `>` the rest, as on the server."""
    peer = await follow(tab, relay, "a.*.c")
    await tab.page.evaluate("() => { follow('a.b.>', { onSnapshot: (f) => report(['rest', f.channel]) }); }")
    for channel in ("a.b.c", "a.b.c.d", "a.b", "axb.c", "a.x.c", "a.+.c"):
        await peer.send(snapshot(1, channel=channel))
    assert [(await tab.next("onSnapshot"))["channel"] for _ in range(3)] == ["a.b.c", "a.x.c", "a.+.c"]
    await peer.send(snapshot(2, channel="a.b.z"), snapshot(2, channel="a.b.c"))
    assert await tab.next("rest") == "a.b.z"


async def test_prices_become_stale_after_one_and_a_half_silent_heartbeats_and_live_with_the_next_frame(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A price that stopped must not look like one that is stable."""
    peer = await follow(tab, relay)
    await peer.send(snapshot(1))
    assert await tab.next("onStatus") == {"channel": BTC, "state": "live"}
    await tab.clock.run_for(7_499)
    assert tab.events.empty()
    await tab.clock.run_for(1)
    assert await tab.next("silence") is True
    assert await tab.next("onStatus") == {"channel": BTC, "state": "stale"}
    await peer.send({"type": "heartbeat", "ts": 1_790_000_009_000})
    assert await tab.next("silence") is False
    assert await tab.next("onStatus") == {"channel": BTC, "state": "live"}


async def test_a_link_is_dead_after_two_and_a_half_silent_heartbeats(tab: Tab, relay: ScriptedRelay) -> None:
    """The network may take minutes to say so; the client closes and takes a new connection itself."""
    peer = await follow(tab, relay)
    await tab.clock.run_for(12_499)
    assert await tab.page.evaluate("stream.state") == "open"
    await tab.clock.run_for(1)
    change = await tab.state("waiting")
    assert (change["code"], change["reason"]) == (1006, "dead_link")
    assert await peer.gone() == 1000
    await tab.wait_out(change)
    assert (await relay.accept()).offered.endswith("token-2")


async def test_heartbeats_keep_a_quiet_link_alive(tab: Tab, relay: ScriptedRelay) -> None:
    """Nothing to say is not silence."""
    peer = await follow(tab, relay)
    for _ in range(5):
        await tab.clock.run_for(5_000)
        await peer.send({"type": "heartbeat", "ts": 1_790_000_000_000})
        await tab.next("heartbeat")
    assert await tab.page.evaluate("stream.state") == "open"


async def test_a_page_that_slept_gives_the_link_one_more_heartbeat(tab: Tab, relay: ScriptedRelay) -> None:
    """After a closed lid the timer fires before the frames that have arrived; that is no proof of a dead link."""
    peer = await follow(tab, relay)
    await tab.clock.fast_forward(600_000)
    assert await tab.next("silence") is True
    await peer.send({"type": "heartbeat", "ts": 1_790_000_600_000})
    assert await tab.next("silence") is False
    await tab.clock.run_for(5_000)
    assert await tab.page.evaluate("stream.state") == "open"


async def test_every_channel_is_stale_from_the_disconnect_until_its_next_snapshot(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """Also where the snapshot repeats the known value: then it proves that the value still stands."""
    peer = await follow(tab, relay)
    await peer.send(snapshot(3))
    assert (await tab.next("onStatus"))["state"] == "live"
    await peer.close(1006)
    assert (await tab.next("onStatus"))["state"] == "stale"
    await tab.wait_out(await tab.state("waiting"))
    peer = await relay.accept()
    await peer.welcome()
    await tab.state("open")
    assert tab.events.qsize() <= 1  # the welcome event and no status
    await peer.send(snapshot(3))
    assert await tab.next("onStatus", "onSnapshot") == {"channel": BTC, "state": "live"}


async def test_a_quiet_publisher_makes_its_channel_stale_and_an_update_live_again(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The server judges publishers: in the ack, and in status frames."""
    peer = await follow(tab, relay)
    ack = {"channel": BTC, "mode": "latest", "interval_ms": 0, "epoch": "e1", "seq": 1, "state": "stale"}
    await peer.send({"type": "subscribed", "channels": [ack], "rejected": []}, snapshot(1), update(2))
    assert data_of(await tab.next("onSnapshot", "onStatus")) == ("snapshot", 1)
    assert data_of(await tab.next("onUpdate", "onStatus")) == ("update", 2)
    assert (await tab.next("onStatus"))["state"] == "live"
    await peer.send({"type": "status", "channel": BTC, "state": "stale", "since": 1})
    assert (await tab.next("onStatus"))["state"] == "stale"
    await peer.send({"type": "status", "channel": BTC, "state": "live"})
    assert (await tab.next("onStatus"))["state"] == "live"


async def test_the_first_value_that_a_channel_ever_has_is_live(tab: Tab, relay: ScriptedRelay) -> None:
    """Its ack said stale because there was none; that says nothing about the value that is published then."""
    peer = await follow(tab, relay)
    ack = {"channel": BTC, "mode": "latest", "interval_ms": 0, "epoch": "", "seq": 0, "state": "stale"}
    await peer.send({"type": "subscribed", "channels": [ack], "rejected": []})
    await peer.send(snapshot(1))
    assert await tab.next("onStatus") == {"channel": BTC, "state": "live"}


async def test_ages_are_on_the_servers_clock(tab: Tab, relay: ScriptedRelay) -> None:
    """The page's own clock may be a year off."""
    peer = await follow(tab, relay)
    assert await tab.page.evaluate("stream.serverNow()") == 1_790_000_000_000
    await tab.clock.run_for(1_500)
    assert await tab.page.evaluate("stream.serverNow()") == 1_790_000_001_500
    await peer.send({"type": "heartbeat", "ts": 1_790_000_001_540})
    await tab.next("heartbeat")
    # the heartbeat was 40 ms faster on its way than the welcome: the estimate gets better
    assert await tab.page.evaluate("stream.serverNow()") == 1_790_000_001_540


@pytest.mark.parametrize("name", SCHEDULES)
async def test_the_servers_clock_is_followed_up_and_down(tab: Tab, relay: ScriptedRelay, name: str) -> None:
    """The estimate is the fastest frame's, and begins again when the server's clock was set back."""
    await tab.start(relay, follow=BTC)
    peer = await relay.accept()
    for step in SCHEDULES[name]:
        await tab.clock.run_for(step.wait_ms)
        await peer.send(step.frame)
        await tab.next({"update": "onUpdate", "snapshot": "onSnapshot"}.get(kind := step.frame["type"], kind))
        assert await tab.page.evaluate("stream.serverNow()") == pytest.approx(T0 + step.expected, abs=1), step


async def test_a_refused_channel_reaches_who_asked_for_it(tab: Tab, relay: ScriptedRelay) -> None:
    """And is not asked for again on this connection."""
    peer = await follow(tab, relay, "orders.42")
    refusal = {"channel": "orders.42", "code": "forbidden", "message": "Outside the token's scope."}
    await peer.send({"type": "subscribed", "channels": [], "rejected": [refusal]})
    assert await tab.next("onError") == refusal


async def test_frames_that_were_too_fast_are_sent_again_when_the_server_allows(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """The server says so without an id, of a frame that it did not look at."""
    peer = await follow(tab, relay)
    await tab.page.evaluate("() => { follow('prices.ETH-USD'); }")
    await tab.clock.run_for(250)
    assert (await peer.next())["channels"] == ["prices.ETH-USD"]
    await peer.send(
        {"type": "error", "code": "rate_limited", "message": "", "retryable": True, "retry_after_ms": 700}
    )
    await peer.send({"type": "heartbeat", "ts": 1})
    await tab.next("heartbeat")
    await tab.clock.run_for(700)
    assert (await peer.next())["channels"] == ["prices.ETH-USD"]


async def test_a_reader_that_throws_stops_nobody_else(tab: Tab, relay: ScriptedRelay) -> None:
    """Its mistake goes where uncaught errors go."""
    peer = await follow(tab, relay, "other")
    await tab.page.evaluate(
        "(btc) => { stream.subscribe(btc, { onSnapshot() { throw Error('mine'); } }); }", BTC
    )
    await tab.page.evaluate("(btc) => { follow(btc); }", BTC)
    await peer.send(snapshot(1))
    assert data_of(await tab.next("onSnapshot")) == ("snapshot", 1)
    with pytest.raises(Exception, match="mine"):  # the page's clock hands on what its timers throw
        await tab.clock.run_for(10)


async def test_frames_that_the_client_does_not_know_change_nothing(tab: Tab, relay: ScriptedRelay) -> None:
    """A newer server must not break an older page, nor must one that sends rubbish."""
    peer = await follow(tab, relay)
    await peer.send({"type": "novelty", "x": 1}, {"type": "snapshots", "channel": BTC})
    for text in BROKEN_FRAMES:
        await peer.connection.send(text)
        assert (await tab.next("error"))["code"] == "malformed_frame", text
    await peer.send(snapshot(1))
    assert data_of(await tab.next("onSnapshot")) == ("snapshot", 1)


async def test_ping_measures_the_round_trip_and_ends_with_the_connection(
    tab: Tab, relay: ScriptedRelay
) -> None:
    """A promise that never settles would be a leak."""
    peer = await follow(tab, relay)
    await tab.page.evaluate("() => { stream.ping().then((ms) => report(['rtt', ms])); }")
    asked = await peer.next()
    await tab.clock.run_for(12)
    await peer.send({"type": "pong", "id": asked["id"], "ts": 1})
    assert await tab.next("rtt") == 12
    await tab.page.evaluate("() => { stream.ping().then((ms) => report(['rtt', String(ms)])); }")
    await peer.next()
    await peer.close(1012)
    assert await tab.next("rtt") == "NaN"
