"""Opening connections to a real relay: it takes real tokens, and whatever is refused is told in a sentence."""

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from relay.bench import BenchError
from relay.bench.load.clients import Target, close_reason, open_all, take_all
from relay.bench.load.publisher import Order, publish_ends, publisher_of
from relay.bench.load.ticks import Ticks
from tests.support.relay_process import PUBLISHER_KEY, Relay, running


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for all tests here."""
    with running(tmp_path_factory.mktemp("relay")) as running_relay:
        yield running_relay


def target(
    relay: Relay,
    *,
    session: str = "",
    channels: Sequence[str] = ("prices.BENCH",),
    path: str = "/ws/prices",
    endpoint: str = "",
    interval_ms: int = 0,
) -> Target:
    """Return where to connect as one person."""
    return Target(
        stream=relay.stream_url + path,
        issuer=relay.url,
        sessions=[session or relay.session()],
        channels=channels,
        endpoint=endpoint,
        interval_ms=interval_ms,
    )


def ends_in(connection: socket.socket, ticks: Ticks, count: int) -> set[int]:
    """Read until so many end marks came; returns their channels."""
    connection.settimeout(10)
    received = b""
    while received.count(ticks.end_marker) < count or not received.endswith(b"}"):
        received += connection.recv(65_536)
    return {int(part[:5]) for part in received.split(ticks.end_marker)[1:]}


async def test_every_connection_has_a_token_of_its_own(relay: Relay) -> None:
    """Tokens work once, so five connections take five of them."""
    for link in await open_all(target(relay), [(0,)] * 5):
        assert not link.socket.getblocking()
        link.close()
    jtis = {
        record["relay"]["token"]["jti"]
        for record in relay.audit()
        if record["event"]["action"] == "token.issued"
    }
    assert len(jtis) == 5


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"session": "no.session.token"}, "The issuer gave no token: 401 "),
        ({"channels": ["orders.42"]}, "The issuer gave no token: 403 "),
        ({"path": "/ws/elsewhere"}, "/ws/elsewhere refused the handshake: 404"),
        ({"path": "/ws/depth"}, "/ws/depth refused the handshake: 403 Forbidden. .*not allowed"),
    ],
)
async def test_a_refusal_is_told(relay: Relay, changed: dict[str, Any], sentence: str) -> None:
    """The error names the server that refused, and what it said."""
    with pytest.raises(BenchError, match=sentence):
        await open_all(target(relay, **changed), [(0,)] * 3)


async def test_something_else_than_a_relay_is_told(relay: Relay) -> None:
    """An HTTP server that issues no tokens, or upgrades nothing, is recognised."""
    with pytest.raises(BenchError, match="The issuer gave no token: 404"):
        await open_all(
            Target(stream="ws://x:1/", issuer=relay.internal_url, sessions=["x"], channels=["prices.X"]),
            [(0,)],
        )
    with pytest.raises(BenchError, match="refused the handshake: 4"):
        await open_all(Target(stream=relay.url.replace("http", "ws")), [()])


async def test_many_channels_with_an_interval_are_subscribed(relay: Relay) -> None:
    """More than a token may name go into the URL, and so does the interval; each connection has its own."""
    channels = [f"prices.MANY.{number}" for number in range(100)]
    hands = [tuple(range(40)), tuple(range(40, 43))]
    opened = await open_all(target(relay, channels=channels, interval_ms=100), hands, receive_bytes=4096)
    ticks = Ticks(run="0a1b2c3d", channels=channels)
    async with publisher_of(Order(ticks=ticks, url=relay.internal_url, key=PUBLISHER_KEY)) as publisher:
        await publish_ends(publisher, ticks, [1] * len(channels))
    for link, hand in zip(opened, hands, strict=True):
        assert ends_in(link.socket, ticks, len(hand)) == set(hand)
        link.close()


async def test_tokens_may_be_taken_before(relay: Relay) -> None:
    """What took them connects with them later; on the endpoint that was asked for."""
    hands = [(0,)] * 3
    trades = target(relay, channels=["trades.X"], path="/ws/trades", endpoint="trades")
    tokens = await take_all(trades, hands, first=1)
    assert len({token.wsToken for token in tokens}) == 3
    assert tokens[0].wsToken not in repr(tokens[0])
    for link in await open_all(trades, hands, tokens=tokens):
        link.close()


def test_a_close_frame_is_read() -> None:
    """Code and reason are taken from the end of what came; anything else gives nothing."""
    assert close_reason(b'{"a":1}\x88\x0a\x11\x98replaced') == "Its close code: 4504 replaced"
    assert close_reason(b"\x88\x02\x03\xe8") == "Its close code: 1000"
    assert close_reason(b"\x88\x00") == ""
    assert close_reason(b"") == ""


async def test_an_address_without_a_server_is_an_error() -> None:
    """A target without an issuer needs no token; if no server listens, the error says so."""
    with pytest.raises(BenchError, match=r"ws://127\.0\.0\.1:1/ can't be reached"):
        await open_all(Target(stream="ws://127.0.0.1:1/"), [()] * 2)
