"""Event streams: the request, the answers that are no stream, and what the client may not do."""

import json
from pathlib import Path
from typing import Any

import pytest

import relay.stream.listener as listener
from relay.core.channels import ChannelOptions
from relay.core.messages import Mode
from tests.support.event_streams import RawEventStream
from tests.support.raw_http import Answer, exchange, head
from tests.support.raw_websocket import until
from tests.support.stream_node import ORIGIN, Node, running_node

TRADES = ChannelOptions(mode=Mode.STREAM, history_messages=50, history_ms=300_000)
EVIL = "https://evil.example"
CORS = ("access-control-allow-origin", "access-control-expose-headers", "vary")


async def ask(node: Node, query: str = "", **options: Any) -> Answer:
    """Return the answer to a request, without the events of one that is accepted."""
    async with node.ask(query, **options) as wire:
        assert isinstance(wire, RawEventStream)
        await wire.shake()
        return wire.answer


async def opens_a_websocket(node: Node, token: str) -> bool:
    """Tell whether a token can still be used."""
    async with node.dial(token=token) as wire:
        return await wire.shake() == 101


async def welcomed(wire: Any) -> None:
    assert await wire.shake() == 200
    await wire.message("subscribed")


async def test_the_head_of_the_answer(node: Node) -> None:
    """No proxy may store, change or collect the events; a page of an allowed origin may read them."""
    answer = await ask(node, "&channels=prices.A")
    assert answer.status == 200
    wanted = {
        "content-type": "text/event-stream",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "connection": "close",
        "access-control-allow-origin": ORIGIN,
        "access-control-expose-headers": "Retry-After",
        "vary": "Origin",
        "x-content-type-options": "nosniff",
    }
    assert wanted.items() <= dict(answer.fields).items()
    assert "access-control-allow-credentials" not in dict(answer.fields)
    assert not answer.all("content-length")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"token": ""}, 401, "invalid_token"),
        ({"token": "x.y.z"}, 401, "invalid_token"),
        ({"query": "token=x"}, 400, "invalid_request"),
        ({"fields": [("Authorization", "Bearer x")]}, 400, "invalid_request"),
        ({"token": "", "fields": [("Authorization", "Basic eDp5")]}, 401, "invalid_token"),
        ({"origin": EVIL}, 403, "forbidden"),
        ({"origin": "null"}, 403, "forbidden"),
        ({"origin": ""}, 403, "forbidden"),
        ({"origin": "", "fields": [("Sec-Fetch-Site", "same-site")]}, 403, "forbidden"),
        ({"fields": [("Origin", ORIGIN)]}, 403, "forbidden"),
        ({"fields": [("Host", "again")]}, 400, "invalid_request"),
        ({"fields": [("Cookie", ";" * 300)]}, 431, "too_large"),
        ({"fields": [("Relay-Subscribe", "{}")]}, 400, "invalid_request"),
        ({"fields": [("Relay-Subscribe", '{"channels":"prices.A"}')]}, 400, "invalid_request"),
        ({"fields": [("Relay-Subscribe", '{"channels":[]}')] * 2}, 400, "invalid_request"),
        ({"query": "channels=A", "fields": [("Relay-Subscribe", '{"channels":[]}')]}, 400, "invalid_request"),
        ({"fields": [("Relay-Subscribe", json.dumps({"channels": ["A"] * 257}))]}, 400, "too_many_channels"),
        ({"fields": [("Relay-Subscribe", '{"channels":["%s"]}' % ("A" * 16_384))]}, 400, "invalid_request"),
        ({"query": "since={}&since={}"}, 400, "invalid_request"),
        ({"query": "last_event_id=a&last_event_id=b"}, 400, "invalid_request"),
        ({"query": "since=[]"}, 400, "invalid_request"),
        ({"query": 'since={"A":{"epoch":"e"}}'}, 400, "invalid_request"),
        ({"query": "interval_ms=-1"}, 400, "invalid_request"),
    ],
    ids=lambda value: repr(value)[:50] if isinstance(value, dict) else None,
)
async def test_refusals_are_whole_answers(node: Node, change: dict[str, Any], status: int, code: str) -> None:
    """A page of an allowed origin can read status and body, and no other page can. No token is used up."""
    token = change.get("token", node.tickets.token())
    options = {"token": token} | change
    answer = await ask(node, **options)
    assert (answer.status, answer.code) == (status, code)
    is_ours = options.get("origin", ORIGIN) == ORIGIN and ("Origin", ORIGIN) not in options.get("fields", [])
    assert dict(answer.fields).keys() & set(CORS) == (set(CORS) if is_ours else set())
    assert not node.stream.registry.connections
    if len(token) > 10:
        assert await opens_a_websocket(node, token)


async def test_a_token_is_used_once_over_both_transports(node: Node) -> None:
    """Whichever transport comes first, the same token is refused by both, with the same answer to the second."""
    for first, second in (("sse", "sse"), ("sse", "websocket"), ("websocket", "sse")):
        token = node.tickets.token()
        for number, transport in enumerate((first, second)):
            wire_of = node.ask if transport == "sse" else node.dial
            async with wire_of(token=token) as wire:
                assert await wire.shake() == (401 if number else 101 if transport == "websocket" else 200)
    assert await node.refusals(3) == ["token_replayed"] * 3


async def test_the_token_in_the_url_needs_the_transport_query(node: Node, tmp_path: Path) -> None:
    """An EventSource can set no header. The setting that forbids tokens in URLs holds for it too."""
    assert (await ask(node, f"token={node.tickets.token()}", token="")).status == 200
    (tmp_path / "other").mkdir()
    async with running_node(tmp_path / "other", transports=("subprotocol",)) as other:
        token = other.tickets.token()
        assert (await ask(other, f"token={token}", token="")).status == 400
        assert (await ask(other, token=token)).status == 200


async def test_a_page_of_the_streams_own_origin_sends_no_origin(node: Node) -> None:
    """The browser's word that the page has the same origin counts, and the token's origin must be allowed."""
    fields = [("Sec-Fetch-Site", "same-origin")]
    answer = await ask(node, origin="", fields=fields)
    assert answer.status == 200
    assert not dict(answer.fields).keys() & set(CORS)
    for origin in ("", EVIL):
        elsewhere = node.tickets.of_origin(origin).token()
        assert (await ask(node, token=elsewhere, origin="", fields=fields)).status == 403
    assert await node.refusals(2) == ["token_origin"] * 2


async def test_long_lists_come_in_a_header(node: Node) -> None:
    """Relay-Subscribe has channels, interval and positions, as in a subscribe frame."""
    names = [f"prices.{number}" for number in range(256)]
    frame = json.dumps({"channels": names, "interval_ms": 100})
    async with node.ask(fields=[("Relay-Subscribe", frame)]) as wire:
        assert await wire.shake() == 200
        channels = (await wire.message("subscribed"))["channels"]
        assert [each["channel"] for each in channels] == names
        assert {each["interval_ms"] for each in channels} == {100}


async def test_head_says_what_can_be_said_without_the_token(node: Node) -> None:
    """It has the status and the headers of the answer without a body, and uses no token up."""
    token = node.tickets.token()
    async with node.ask(token=token, method="HEAD") as wire:
        rest = await wire.reader.read()
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"\r\n\r\n")
    async with node.ask(token=token, method="HEAD", origin=EVIL) as wire:
        rest = await wire.reader.read()
    assert rest.startswith(b"HTTP/1.1 403 ")
    assert rest.endswith(b"\r\n\r\n")
    assert (await ask(node, token=token)).status == 200


@pytest.mark.parametrize(
    ("origin", "path", "status"),
    [(ORIGIN, "/ws/prices", 204), (EVIL, "/ws/prices", 403), (ORIGIN, "/x", 404)],
)
async def test_preflights(node: Node, origin: str, path: str, status: int) -> None:
    """An allowed origin may send the headers of a request. A refusal is recorded: the request itself never comes."""
    fields = [("Host", "x"), ("Origin", origin), ("Access-Control-Request-Method", "GET")]
    answer = await exchange(node.port, head("OPTIONS", path, fields))
    assert answer.status == status
    assert answer.all("access-control-allow-origin") == ([ORIGIN] if origin == ORIGIN else [])
    assert answer.all("access-control-allow-headers") == (
        ["authorization, last-event-id, relay-subscribe"] if status == 204 else []
    )
    assert not answer.all("access-control-allow-credentials")
    await until(lambda: len(node.audited()) == (status != 204))


async def test_an_event_source_that_connects_again_is_stopped(node: Node) -> None:
    """204 stops it, recorded as sse_reconnect. Without Last-Event-ID, or from elsewhere, it is a replay."""
    token = node.tickets.token()
    async with node.ask(f"token={token}&channels=prices.A", token="") as wire:
        await welcomed(wire)
        assert isinstance(wire, RawEventStream)
        again = [("Last-Event-ID", wire.last_id)]
    assert again[0][1]
    answer = await ask(node, f"token={token}", token="", fields=again)
    assert (answer.status, answer.body, answer.all("content-length")) == (204, b"", [])
    assert answer.all("access-control-allow-origin") == [ORIGIN]
    assert (await ask(node, f"token={token}", token="")).status == 401
    target, fields = f"/ws/prices?token={token}", [("Host", "x"), ("Accept", "text/event-stream"), *again]
    elsewhere = head("GET", target, [*fields, ("Origin", ORIGIN)])
    assert (await exchange(node.port, elsewhere, source="127.0.0.2")).status == 401
    assert await node.refusals(3) == ["sse_reconnect", "token_replayed", "token_replayed"]


async def test_the_last_id_resumes_all_channels(tmp_path: Path) -> None:
    """In the header, or in the query string, as an EventSource with a new token can only do. The id stays until then.

    Nothing is lost or repeated, for exact names and patterns, and a channel whose history is gone says so.
    """
    async with running_node(tmp_path, channels=TRADES) as node:
        for _ in range(3):
            node.publish("prices.A")
        async with node.ask("channels=prices.A,prices.B") as wire:
            await welcomed(wire)
            assert (await wire.message("snapshot"))["seq"] == 3
            node.publish("prices.A")
            assert (await wire.message("update"))["seq"] == 4
            last_id = wire.last_id
        await node.empty()
        for _ in range(3):
            node.publish("prices.A")
            node.publish("prices.B")
        header, query = [("Last-Event-ID", last_id)], f"&last_event_id={last_id}"
        wanted = {"prices.A": [5, 6, 7], "prices.B": [1, 2, 3]}
        for names, fields in (
            ("prices.A,prices.B", header),
            (f"prices.A,prices.B{query}", []),
            ("prices.*", header),
            (f"prices.A,prices.B{query}0", header),  # the header is newer than the URL
        ):
            async with node.ask(f"channels={names}", fields=fields) as wire:
                await wire.shake()
                await wire.message("welcome")
                assert wire.last_id == last_id
                acks = (await wire.message("subscribed"))["channels"]
                assert {each.get("recovered", True) for each in acks} == {True}
                found: dict[str, list[int]] = {name: [] for name in wanted}
                while found != wanted:
                    message = await wire.message()
                    assert message["type"] == "update"
                    found[message["channel"]].append(message["seq"])
        for _ in range(60):
            node.publish("prices.A")
        async with node.ask("channels=prices.A,prices.B", fields=header) as wire:
            await wire.shake()
            acks = (await wire.message("subscribed"))["channels"]
            assert [each["recovered"] for each in acks] == [False, True]
            assert (await wire.message())["type"] == "snapshot"
        for nonsense in ("x" * 8000, f"{last_id}000000", "0-1", "\xff"):
            async with node.ask("channels=prices.A", fields=[("Last-Event-ID", nonsense)]) as wire:
                await wire.shake()
                assert not (await wire.message("subscribed"))["channels"][0]["recovered"]
                assert nonsense not in wire.last_id


async def test_a_client_that_sends_something_is_cut_off(node: Node) -> None:
    """An event stream's client has nothing to say. Its bytes are not kept, whatever they are."""
    async with node.ask("channels=prices.A") as wire:
        await welcomed(wire)
        wire.send(b"GET / HTTP/1.1\r\n\r\n" * 1000)
        await node.empty()
    record = await node.closed()
    assert record["event"]["reason"] == "frame_malformed"
    assert record["relay"]["connection"]["initiator"] == "relay"


async def test_the_time_limit_of_the_handshake_does_not_end_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library takes the connection for lost at once: its task has ended, and with it its time limit.

    A release of the library that keeps the task, or cuts the transport off with it, fails here.
    """
    monkeypatch.setattr(listener, "TOKEN_WITHIN_S", 1.0)
    async with running_node(tmp_path) as node, node.ask("channels=prices.A") as wire:
        await welcomed(wire)
        await until(lambda: not any(server.handler_tasks for server in node.servers))
        node.publish("prices.A")
        assert (await wire.message())["type"] == "snapshot"
        assert not node.connections
        assert not node.stream._addresses


async def test_stop_ends_event_streams_too(tmp_path: Path) -> None:
    """`stop` waits until they are gone and recorded, and their last event says why."""
    async with running_node(tmp_path) as node:
        context = node.ask("channels=prices.A")
        wire = await context.__aenter__()
        await welcomed(wire)
    ending = await wire.ending()
    assert (ending.code, ending.reason) == (1001, "going_away")
    await context.__aexit__(None, None, None)
    assert node.audited()[-1]["event"]["action"] == "connection.closed"
