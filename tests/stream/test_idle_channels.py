"""Channels that nobody uses are removed, and come back as new ones."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.client import Snapshot, Subscriber, Update
from relay.core.hub import Hub
from relay.stream.idle_channels import IdleChannels
from tests.support.hub import flush, joined, make_hub, publication
from tests.support.operators import OPERATORS, READER, operate
from tests.support.relay_process import Relay, Socket, running


class Looks:
    """Looks at a hub's channels, with a clock that the test sets."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.idle_channels = IdleChannels()

    def at(self, now: float) -> list[str]:
        """Return the channels that were untouched for 100 s."""
        slices = self.idle_channels.look(self.hub.channels(), idle_s=100, now=now)
        return [channel.name for idle in slices for channel in idle]


def test_a_channel_is_idle_when_nothing_came_for_the_whole_time() -> None:
    """Values and signs of life count from the look that sees them; a channel that is live is not idle."""
    hub, _ = make_hub()
    looks = Looks(hub)
    hub.publish(publication("a", 1, ts=0))
    hub.publish(publication("b", 1, ts=0))
    assert looks.at(0) == looks.at(1000) == []  # live
    hub.mark_stale(now_ms=10_000)
    assert looks.at(1001) == looks.at(1100) == []
    hub.publish(publication("a", 2, ts=10_000))
    hub.mark_stale(now_ms=20_000)
    assert looks.at(1101) == ["b"]
    hub.alive("b", ts=0)  # by a clock that was set back
    hub.mark_stale(now_ms=30_000)
    assert looks.at(1199) == []
    assert looks.at(1201) == ["a"]
    assert sorted(looks.at(1299)) == ["a", "b"]


def test_a_removed_channel_frees_what_the_hub_held() -> None:
    """Nothing of it is left, and a pattern's subscriber waits for the next value."""
    hub, _ = make_hub()
    line, _ = joined(hub, ["a.*"])
    hub.publish(publication("a.x", 1))
    flush(hub)
    assert hub.remove("a.x")
    flush(hub)
    assert [frame["type"] for frame in line.frames()] == ["snapshot", "status"]
    assert list(hub.channels()) == []
    assert hub.match_count("a.*") == 0
    assert not hub.remove("a.x")
    hub.publish(publication("a.x", 7))
    flush(hub)
    assert [(frame["type"], frame.get("seq"), frame.get("state")) for frame in line.frames()] == [
        ("snapshot", 7, None),
        ("status", None, "live"),
    ]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay that removes channels after half a second, and has room for three."""
    with running(tmp_path, limits="channels = 3", extra=OPERATORS + "[channels]\nidle_s = 0.5\n") as relay:
        yield relay


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that keeps channels for days."""
    with running(tmp_path_factory.mktemp("patient"), extra=OPERATORS) as relay:
        yield relay


async def next_of(socket: Socket, kind: str, channel: str) -> dict[str, Any]:
    """Wait for the next frame of a type about a channel."""
    while (frame := await socket.next())["type"] != kind or frame["channel"] != channel:
        pass
    return frame


async def test_unused_channels_make_room_for_new_ones(relay: Relay) -> None:
    """The channel that a client names stays. The others go, and a new one begins above their numbers."""
    for seq in range(1, 4):
        for channel in ("trades.NAMED", "trades.OLD", "trades.OLDER"):
            assert (await relay.publish(channel, seq)).json()["seq"] == seq
    token = await relay.token(endpoint="trades")
    async with relay.connect(token, path="/ws/trades", query="?channels=trades.NAMED,trades.*") as reader:
        async with asyncio.timeout(30):
            while (answer := await relay.publish("trades.NEW", "new")).status_code != 200:
                assert answer.status_code == 400
                assert "channels.idle_s" in answer.json()["message"]
                await asyncio.sleep(
                    0.02
                )  # there is nothing to await: a pattern's reader was told long before
        assert answer.json()["seq"] == 4
        assert (await next_of(reader, "snapshot", "trades.NEW"))["seq"] == 4
        assert (await relay.publish("trades.NAMED", 4)).json()["seq"] == 4
        assert (await next_of(reader, "update", "trades.NAMED"))["seq"] == 4
    rows = (await operate(relay, "GET", "/v1/channels")).json()["channels"]
    assert {row["channel"] for row in rows} >= {"trades.NAMED", "trades.NEW"}
    assert "idle channels were removed" in relay.log_path.read_text()


async def test_an_operator_removes_a_channel(patient: Relay) -> None:
    """Its subscribers see it as stale, and get its next value; the call is recorded, and needs `reset`."""
    first = (await patient.publish("prices.EUR/USD", "old")).json()
    async with patient.connect(query="?channels=prices.EUR/USD,prices.*") as reader:
        await reader.read("subscribed")
        await reader.read("snapshot")
        assert (
            await operate(patient, "DELETE", "/v1/channels/prices.EUR/USD", key=READER)
        ).status_code == 403
        answer = await operate(patient, "DELETE", "/v1/channels/prices.EUR/USD")
        assert answer.json() == {"channel": "prices.EUR/USD", "removed": True}
        assert (await next_of(reader, "status", "prices.EUR/USD"))["state"] == "stale"
        again = (await patient.publish("prices.EUR/USD", "new")).json()
        assert (again["epoch"], again["seq"]) == (first["epoch"], first["seq"] + 1)
        snapshot = await next_of(reader, "snapshot", "prices.EUR/USD")
        assert (snapshot["seq"], snapshot["data"]) == (again["seq"], "new")
        assert (await next_of(reader, "status", "prices.EUR/USD"))["state"] == "live"
    record = await patient.recorded(lambda one: one["relay"].get("removed") is True)
    assert (record["event"]["action"], record["relay"]["channel"]) == ("operator.action", "prices.EUR/USD")
    unknown = await operate(patient, "DELETE", "/v1/channels/prices.UNKNOWN")
    assert unknown.json() == {"channel": "prices.UNKNOWN", "removed": False}
    assert (await operate(patient, "DELETE", "/v1/channels/prices.*")).status_code == 400


async def test_a_removed_stream_channel_has_no_history(patient: Relay) -> None:
    """A client that resumes is told that it did not recover, and continues with the newest value."""
    for value in range(3):
        position = (await patient.publish("trades.GONE", value)).json()
    await operate(patient, "DELETE", "/v1/channels/trades.GONE")
    newest = (await patient.publish("trades.GONE", "new")).json()
    async with patient.connect(await patient.token(endpoint="trades"), path="/ws/trades") as reader:
        await reader.read("error")
        since = {"trades.GONE": {"epoch": position["epoch"], "seq": position["seq"] - 1}}
        await reader.send(type="subscribe", id=1, channels=["trades.GONE"], since=since)
        assert not (await reader.read("subscribed"))["channels"][0]["recovered"]
        assert (await reader.read("snapshot"))["seq"] == newest["seq"]


async def test_the_python_client_goes_on_with_a_channel_that_came_back(patient: Relay) -> None:
    """Its number is higher in the same epoch, so the client does not take it for a repetition."""
    await patient.publish("prices.BACK", "old")
    async with Subscriber(
        f"{patient.stream_url}/ws/prices", await patient.token(), origin=patient.url
    ) as events:
        await events.subscribe(["prices.BACK"])
        assert await value_of(events) == "old"
        await operate(patient, "DELETE", "/v1/channels/prices.BACK")
        await patient.publish("prices.BACK", "new")
        assert await value_of(events) == "new"


async def value_of(events: Subscriber) -> Any:
    """Return the next value."""
    while not isinstance(event := await anext(events), Snapshot | Update):
        pass
    return event.data
