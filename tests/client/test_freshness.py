"""Which channels are called stale, and when they are live again."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client import Event, Status
from relay.client.frames import (
    Acknowledged,
    Snapshot,
    Update,
    parse_server_frame,
)
from relay.client.freshness import Freshness, ServerClock
from tests.support.scripted_servers import send, stay, stream_server, value, welcome
from tests.support.sdk_subscriber import following, says, subscriber, take
from tests.support.server_clocks import SCHEDULES, T0

pytestmark = pytest.mark.usefixtures("compression")


def _frame(kind: str, seq: int, **members: Any) -> Snapshot | Update:
    frame = parse_server_frame(json.dumps(value(kind, seq, **members)))
    assert isinstance(frame, Snapshot | Update)
    return frame


def _ack(*, epoch: str = "e1", seq: int = 1, state: str = "live") -> Acknowledged:
    return Acknowledged(channel="prices.A", epoch=epoch, seq=seq, state=state)


def _watched() -> Freshness:
    """Return the state after the ack and the first value of prices.A."""
    freshness = Freshness()
    assert freshness.acknowledged(_ack(), is_current=False, now_ms=1) is None
    assert freshness.valued(_frame("snapshot", 1), now_ms=2) is None
    return freshness


def _stale(since: int | None, cause: str = "link") -> Status:
    return Status(channel="prices.A", state="stale", since=since, cause=cause)


def _live(since: int | None, cause: str = "link") -> Status:
    return Status(channel="prices.A", state="live", since=since, cause=cause)


def test_a_silent_link_makes_everything_stale_once() -> None:
    """Since its last sign of life; with the next one what the relay calls live is live again."""
    freshness = _watched()
    assert freshness.silent(10) == [_stale(10)]
    assert freshness.silent(10) == []
    assert freshness.heard(20) == [_live(20)]
    assert freshness.heard(21) == []


def test_a_channel_that_the_relay_calls_stale_stays_stale() -> None:
    """A link that is well again says nothing about a publisher that fell silent."""
    freshness = _watched()
    said = Status(channel="prices.A", state="stale", since=5)
    assert freshness.said(said, now_ms=6) is said
    assert freshness.said(said, now_ms=6) is None
    assert freshness.silent(10) == []
    assert freshness.heard(20) == []
    live = Status(channel="prices.A", state="live", since=30)
    assert freshness.said(live, now_ms=30) is live


def test_after_a_reconnect_the_value_itself_makes_it_live() -> None:
    """Not the welcome and not the ack: until the value is there the one at hand may be old."""
    freshness = _watched()
    assert freshness.lost(10) == [_stale(10)]
    assert freshness.heard(20) == []
    assert freshness.acknowledged(_ack(seq=9), is_current=False, now_ms=21) is None
    assert freshness.valued(_frame("update", 8), now_ms=22) is None  # a replay that is not over
    assert freshness.valued(_frame("update", 9), now_ms=23) == _live(23)


def test_after_a_reconnect_an_ack_of_what_is_at_hand_makes_it_live() -> None:
    """Nothing was missed, so nothing will come: the ack is all there is."""
    freshness = _watched()
    freshness.lost(10)
    assert freshness.acknowledged(_ack(), is_current=True, now_ms=21) == _live(21)


def test_after_a_reconnect_the_relays_word_counts() -> None:
    """A publisher that fell silent meanwhile: stale it was, and stale it stays until a newer value comes."""
    freshness = _watched()
    freshness.lost(10)
    assert freshness.acknowledged(_ack(state="stale"), is_current=True, now_ms=21) is None
    assert freshness.valued(_frame("snapshot", 1), now_ms=22) is None
    assert freshness.valued(_frame("snapshot", 2), now_ms=23) == _live(23, "publisher")


def test_a_first_value_makes_a_channel_live() -> None:
    """A channel without a value is stale by its ack; the relay sends no status when the first one comes."""
    freshness = Freshness()
    assert freshness.acknowledged(_ack(epoch="", seq=0, state="stale"), is_current=True, now_ms=1) is None
    assert freshness.valued(_frame("snapshot", 1), now_ms=2) == _live(2, "publisher")


def test_forgotten_channels_are_silent() -> None:
    """What nobody wants any more is not called stale."""
    freshness = _watched()
    freshness.forget(lambda channel: channel == "prices.A")
    assert freshness.lost(10) == []


STEPS = st.lists(
    st.sampled_from(["silent", "heard", "lost", "live", "stale", "current", "behind", "snapshot", "update"]),
    max_size=40,
)


@given(STEPS)
def test_the_caller_is_told_changes_and_never_a_false_live(steps: list[str]) -> None:
    """Whatever happens in whatever order: states alternate, and none is live on a link that is silent or gone."""
    freshness = _watched()
    told, seq, is_well = "live", 1, True
    for step in steps:
        got: list[Status | None] = []
        match step:
            case "silent":
                got, is_well = [*freshness.silent(1)], False
            case "heard":
                got, is_well = [*freshness.heard(1)], True
            case "lost":
                got = [*freshness.lost(1)]
            case "live" | "stale":
                got = [freshness.said(Status(channel="prices.A", state=step), now_ms=1)]
            case "current" | "behind":
                ack = _ack(seq=seq + (step == "behind"))
                got = [freshness.acknowledged(ack, is_current=step == "current", now_ms=1)]
            case _:
                seq += 1
                got = [freshness.valued(_frame(step, seq), now_ms=1)]
        for status in got:
            if status is not None:
                assert status.state != told
                told = status.state
        assert is_well or told == "stale"
        assert step not in {"silent", "lost"} or told == "stale"


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_servers_clock_is_followed_up_and_down(name: str) -> None:
    """The estimate is the fastest frame's, and begins again when the server's clock was set back."""
    clock, now = ServerClock(), 10.0
    assert clock.ms(now) is None
    for step in SCHEDULES[name]:
        now += step.wait_ms / 1000
        frame = parse_server_frame(json.dumps(step.frame))
        assert frame is not None
        clock.read(frame, now)
        assert clock.ms(now) == pytest.approx(T0 + step.expected, abs=1), step


async def test_a_silent_link_is_told_before_it_is_dead() -> None:
    """After 1.5 silent heartbeats every channel is stale, on the server's clock; after 2.5 the link is given up."""

    async def talk(connection: Any) -> None:
        await welcome(connection, heartbeat_ms=40)
        await send(connection, **value("snapshot", 1))
        await stay(connection)

    async with stream_server(talk, says(value("snapshot", 1))) as stream, subscriber(stream.url) as prices:
        await prices.subscribe("prices.A")
        _, first, stale, closed, again, live = await take(prices, 6)
    assert isinstance(first, Snapshot)
    assert isinstance(stale, Status)
    assert (stale.state, stale.cause) == ("stale", "link")
    assert stale.since is not None
    assert 1_000_000 <= stale.since < 1_001_000
    assert (type(closed).__name__, type(again).__name__) == ("Closed", "Welcome")
    assert isinstance(live, Status)
    assert (live.state, live.cause) == ("live", "link")


async def test_a_sign_of_life_makes_live_again() -> None:
    """The silence ends before the link is dead: live, on the same connection."""
    go_on = asyncio.Event()

    async def talk(connection: Any) -> None:
        await welcome(connection, heartbeat_ms=400)
        await send(connection, **value("snapshot", 1))
        await go_on.wait()
        await send(connection, type="heartbeat", ts=1_002_000)
        await stay(connection)

    async with stream_server(talk) as stream, subscriber(stream.url) as prices:
        _, _, stale = await take(prices, 3)
        go_on.set()
        live = await following(prices)
    assert isinstance(stale, Status)
    assert isinstance(live, Status)
    assert (stale.state, live.state) == ("stale", "live")


async def test_a_wait_that_is_given_up_and_renewed_does_not_keep_a_link_alive() -> None:
    """A caller that waits with short timeouts of its own gets the stale events as well."""

    async def talk(connection: Any) -> None:
        await welcome(connection, heartbeat_ms=200)
        await stay(connection)

    async with stream_server(talk, says()) as stream, subscriber(stream.url) as prices:
        await following(prices)
        events: list[Event] = []
        async with asyncio.timeout(20):
            while not events:
                try:
                    async with asyncio.timeout(0.02):
                        events.append(await anext(prices))
                except TimeoutError:
                    continue
    assert type(events[0]).__name__ == "Closed"
