"""The three transports of a token: each works once, alone, and only if it is allowed."""

import json
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.raw_http import bearing, fresh, is_unspent, knock, upgrade
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet


@pytest.fixture(scope="module")
def only_subprotocol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that accepts tokens in the subprotocol only."""
    with running(
        tmp_path_factory.mktemp("subprotocol"), extra='[tokens]\ntransports = ["subprotocol"]'
    ) as relay:
        yield relay
    assert_quiet(relay)


async def receive(websocket: ClientConnection, kind: str) -> dict[str, object]:
    """Return the next frame, which must be of this type."""
    frame: dict[str, object] = json.loads(await websocket.recv())
    assert frame["type"] == kind, frame
    return frame


async def test_the_subprotocol_is_selected_and_the_token_not_echoed(relay: Relay) -> None:
    """Of `relay.v1, bearer.…` the answer names relay.v1 alone, in any order and number of headers."""
    for values in (
        ["relay.v1, bearer.{token}"],
        ["bearer.{token}, relay.v1"],
        ["relay.v1", "bearer.{token}"],
        ["bearer.{token}", "relay.v1"],
        ["a, relay.v1 ,b,bearer.{token} , c"],
    ):
        token = await fresh(relay)
        fields = [("Sec-WebSocket-Protocol", value.format(token=token)) for value in values]
        answer = await knock(relay, fields=[*upgrade(relay), *fields])
        assert (answer.status, answer.all("sec-websocket-protocol")) == (101, ["relay.v1"]), values
        assert token not in str(answer.fields)
        assert answer.all("sec-websocket-extensions") == []
        assert answer.all("server") == []


async def test_the_query_needs_no_subprotocol(relay: Relay) -> None:
    """`new WebSocket(url + "?token=" + token)`, which any page can write without a library, gets its prices."""
    await relay.publish("prices.PLAIN", {"bid": 1.5})
    token = await relay.token(channels=["prices.PLAIN"])
    url = f"{relay.stream_url}/ws/prices?token={token}"
    async with connect(url, additional_headers={"Origin": relay.url}, proxy=None) as websocket:
        assert websocket.subprotocol is None
        await receive(websocket, "welcome")
        await receive(websocket, "subscribed")
        assert (await receive(websocket, "snapshot"))["data"] == {"bid": 1.5}


async def test_channels_and_interval_come_in_the_query(relay: Relay) -> None:
    """`&channels=` subscribes at once, within the token's scope. The answer names channels outside the scope."""
    token = await relay.token(channels=["prices.*"])
    async with relay.connect(token, query="?channels=prices.A,orders.1,prices.B&interval_ms=0") as socket:
        ack = await socket.read("subscribed")
        assert [entry["channel"] for entry in ack["channels"]] == ["prices.A", "prices.B"]
        assert [(entry["channel"], entry["code"]) for entry in ack["rejected"]] == [("orders.1", "forbidden")]


TWO_TOKENS = {
    "in the subprotocol": ("", ["relay.v1, bearer.{a}, bearer.{b}"]),
    "in two subprotocol headers": ("", ["relay.v1, bearer.{a}", "bearer.{b}"]),
    "in the query": ("?token={a}&token={b}", []),
    "in both ways": ("?token={a}", ["relay.v1, bearer.{b}"]),
    "the same in both ways": ("?token={a}", ["relay.v1, bearer.{a}"]),
    "the same twice": ("", ["relay.v1, bearer.{a}, bearer.{a}"]),
    "one of them empty": ("?token=", ["relay.v1, bearer.{a}"]),
    "the other one empty": ("?token={a}", ["relay.v1, bearer."]),
    "spelt differently": ("?token={a}&%74oken={b}", []),
}


@pytest.mark.parametrize("how", TWO_TOKENS)
async def test_two_tokens_are_a_bad_request(relay: Relay, how: str) -> None:
    """The answer is 400, and neither is used up."""
    query, protocols = TWO_TOKENS[how]
    tokens = {"a": await fresh(relay), "b": await fresh(relay)}
    fields = [("Sec-WebSocket-Protocol", value.format(**tokens)) for value in protocols]
    answer = await knock(relay, f"/ws/prices{query.format(**tokens)}", [*upgrade(relay), *fields])
    assert (answer.status, answer.code) == (400, "invalid_request")
    for token in tokens.values():
        assert await is_unspent(relay, token)


@pytest.mark.parametrize(
    "query",
    [
        "?token",
        "?token&x=1",
        "?&",
        "?token=%ff",
        "?token=%zz&a",
        "?a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9&j=10&k=11&l=12&m=13&n=14&o=15&p=16&q=17",
        "?interval_ms=x",
        "?interval_ms=-1",
        "?interval_ms=1.5",
        "?interval_ms=%D9%A1",
        "?interval_ms=99999999",
        "?interval_ms=1&interval_ms=2",
        "?channels=a&channels=b",
        "?channels=" + ",".join(f"prices.A{index}" for index in range(257)),
    ],
)
async def test_a_malformed_query_is_a_bad_request(relay: Relay, query: str) -> None:
    """A query with more than one meaning gets 400, and the token in the subprotocol stays unused."""
    token = await fresh(relay)
    answer = await knock(relay, f"/ws/prices{query}", [*upgrade(relay), bearing(token)])
    assert answer.status == 400, answer
    assert answer.code in ("invalid_request", "too_many_channels")
    assert await is_unspent(relay, token)


async def test_a_token_without_the_protocol_is_a_bad_request(relay: Relay) -> None:
    """With `bearer.…` alone the server has nothing to select, and a browser would fail without a reason."""
    token = await fresh(relay)
    for value in (f"bearer.{token}", f"relay.v2, bearer.{token}", f"RELAY.V1, bearer.{token}"):
        answer = await knock(relay, fields=[*upgrade(relay), ("Sec-WebSocket-Protocol", value)])
        assert (answer.status, answer.code) == (400, "invalid_request")
    assert await is_unspent(relay, token)


async def test_a_transport_that_is_not_allowed_is_refused(only_subprotocol: Relay) -> None:
    """With tokens.transports = ["subprotocol"] the query gets 400 and no token 401. The token stays unused."""
    relay = only_subprotocol
    token = await fresh(relay)
    answer = await knock(relay, f"/ws/prices?token={token}")
    assert (answer.status, answer.code) == (400, "invalid_request")
    answer = await knock(relay)
    assert (answer.status, answer.code) == (401, "invalid_token")
    await relay.audited("connect.denied", reason="token_transport")
    await relay.audited("connect.denied", reason="token_missing")
    assert await is_unspent(relay, token)


async def test_an_empty_token_is_none(only_subprotocol: Relay, relay: Relay) -> None:
    """`bearer.` and `?token=` without a token get 401, with the body of all 401s."""
    for where in (only_subprotocol, relay):
        answer = await knock(where, fields=[*upgrade(where), bearing("")])
        assert (answer.status, answer.code) == (401, "invalid_token")
    assert (await knock(relay, "/ws/prices?token=")).status == 401


async def test_a_token_of_5_mb_costs_nothing(relay: Relay) -> None:
    """A token longer than a header may be is refused by its head, one above 4096 bytes before it is parsed."""
    for size in (4097, 8000):
        answer = await knock(relay, fields=[*upgrade(relay), bearing("a" * size)])
        assert (answer.status, answer.code) == (401, "invalid_token")
    await relay.audited("connect.denied", reason="token_too_large")
    for target, fields in (
        ("/ws/prices", [*upgrade(relay), bearing("a" * 5_000_000)]),
        ("/ws/prices?token=" + "a" * 5_000_000, upgrade(relay)),
        ("/ws/prices", [*upgrade(relay), *((f"X-{index}", "a") for index in range(200))]),
    ):
        assert (await knock(relay, target, fields)).status in (0, 400, 414, 431)
