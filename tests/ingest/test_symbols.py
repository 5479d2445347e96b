"""Symbols of exchanges as channel names, in each place that takes a name."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from relay.client import Publisher, Snapshot, Subscriber
from tests.support.operators import OPERATORS, operate
from tests.support.publisher_socket import publishing
from tests.support.relay_process import PUBLISHER_KEY, Relay, running
from tests.support.symbols import SYMBOLS

CHANNELS = [f"prices.{symbol}" for symbol in SYMBOLS]

SETTINGS = f"""
[endpoints.symbols]
path = "/ws/symbols"
channels = {json.dumps([f"symbols.{symbol}" for symbol in SYMBOLS])}

[publishers.symbols]
secret_sha256 = ["{"0" * 64}"]
channels = {json.dumps([f"symbols.{symbol}" for symbol in SYMBOLS])}
"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay whose settings name each symbol, in an endpoint and in a publisher's channels."""
    with running(tmp_path_factory.mktemp("symbols"), extra=OPERATORS + SETTINGS) as relay:
        yield relay


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_symbol_is_itself_everywhere(relay: Relay, channel: str) -> None:
    """HTTP and socket ingest, the Python clients, tokens, frames, the URL, and the operators' and publishers' lists."""
    published = (await relay.publish(channel, "by HTTP")).json()
    assert published["channel"] == channel
    async with publishing(relay) as socket:
        await socket.send(socket.line(channel, "by socket"))
        assert list((await socket.next())["epoch"]) == [channel]
    async with Publisher(relay.internal_url, PUBLISHER_KEY) as publisher:
        await publisher.publish(channel, ["by client"])

    async with relay.connect(await relay.token(channels=[channel])) as reader:  # named by the token
        assert (await reader.read("subscribed"))["channels"][0]["channel"] == channel
    for written in (quote(channel, safe=""), channel.replace("&", "%26")):
        async with relay.connect(await relay.token(), query=f"?channels={written}") as reader:
            assert (await reader.read("subscribed"))["channels"][0]["channel"] == channel
            assert (await reader.read("snapshot"))["data"] == ["by client"]
            assert await counted(relay, f"channel={written}") == {channel: 1}
    async with Subscriber(f"{relay.stream_url}/ws/prices", await relay.token(), origin=relay.url) as events:
        await events.subscribe([channel])
        while not isinstance(event := await anext(events), Snapshot):
            pass
        assert event.channel == channel

    listed = await operate(relay, "GET", f"/v1/channels?match={channel.replace('&', '%26')}")
    assert [row["channel"] for row in listed.json()["channels"]] == [channel]


async def counted(relay: Relay, query: str) -> dict[str, int]:
    """Ask for the number of subscribers."""
    answer = await relay.get_internal(f"/v1/subscribers?{query}", key=PUBLISHER_KEY)
    numbers: dict[str, int] = answer.json()["subscribers"]
    return numbers


async def test_a_symbol_with_a_dot_needs_the_wide_pattern(relay: Relay) -> None:
    """`prices.*` is one segment more and does not bring `prices.BRK.B`; `prices.>` does."""
    await relay.publish("prices.BRK.B", 1)
    async with relay.connect(query="?channels=prices.BRK.*,prices.*.B") as reader:
        acks = (await reader.read("subscribed"))["channels"]
        assert [ack["matches"] for ack in acks[:2]] == [1, 1]
    await relay.publish("prices.ONLY-ONE-SEGMENT", 1)
    async with relay.connect(query="?channels=prices.*") as reader:
        matches = (await reader.read("subscribed"))["channels"][0]["matches"]
        names = [(await reader.read("snapshot"))["channel"] for _ in range(matches)]
        assert "prices.ONLY-ONE-SEGMENT" in names
        assert "prices.BRK.B" not in names


@pytest.mark.parametrize("symbol", ["A,B", "A B", "A'B", 'A"B', "A(B)", "A;B", "A$B", "A%B", "A#B", "Ä"])
async def test_other_characters_are_refused_with_a_sentence(relay: Relay, symbol: str) -> None:
    """The sentence says which characters there are."""
    answer = await relay.publish(f"prices.{symbol}", 1)
    assert answer.status_code == 400
    assert "_=^/:~+@&!-" in answer.json()["message"]
