"""Refusals before the token is looked at: their order, and that the token stays unused."""

from tests.support.raw_http import (
    KEY,
    OVER_EACH_TRANSPORT,
    Opening,
    asking_for_events,
    bearing,
    exchange,
    fresh,
    head,
    is_unspent,
    knock,
    upgrade,
)
from tests.support.relay_process import Relay

Fields = list[tuple[str, str]]


def without(fields: Fields, *names: str) -> Fields:
    """Return header fields without some."""
    return [(name, value) for name, value in fields if name not in names]


def broken(relay: Relay) -> dict[str, tuple[int, str, str, Fields]]:
    """Broken handshakes, each with its status, code, method and header fields."""
    good = upgrade(relay)
    no_key = without(good, "Sec-WebSocket-Key")
    no_version = without(good, "Sec-WebSocket-Version")
    return {
        "a plain GET": (426, "upgrade_required", "GET", [("Host", "x"), ("Origin", relay.url)]),
        "no Upgrade": (426, "upgrade_required", "GET", without(good, "Upgrade")),
        "no Connection": (426, "upgrade_required", "GET", without(good, "Connection")),
        "another protocol": (426, "upgrade_required", "GET", [*without(good, "Upgrade"), ("Upgrade", "h2c")]),
        "no key": (400, "invalid_request", "GET", no_key),
        "an empty key": (400, "invalid_request", "GET", [*no_key, ("Sec-WebSocket-Key", "")]),
        "a short key": (400, "invalid_request", "GET", [*no_key, ("Sec-WebSocket-Key", "YQ==")]),
        "a long key": (400, "invalid_request", "GET", [*no_key, ("Sec-WebSocket-Key", KEY * 2)]),
        "a key that is no base64": (
            400,
            "invalid_request",
            "GET",
            [*no_key, ("Sec-WebSocket-Key", "\xff" * 24)],
        ),
        "two keys": (400, "invalid_request", "GET", [*good, ("Sec-WebSocket-Key", KEY)]),
        "no version": (400, "invalid_request", "GET", no_version),
        "version 8": (400, "invalid_request", "GET", [*no_version, ("Sec-WebSocket-Version", "8")]),
        "two versions": (400, "invalid_request", "GET", [*good, ("Sec-WebSocket-Version", "13")]),
        "a broken protocol list": (400, "invalid_request", "GET", [*good, ("Sec-WebSocket-Protocol", "a b")]),
        "POST": (405, "method_not_allowed", "POST", good),
        "an unknown method": (405, "method_not_allowed", "FOO", good),
    }


async def test_a_broken_handshake_keeps_its_token(relay: Relay) -> None:
    """Each has its status, in the form of all errors, and leaves a token in the query unused."""
    for kind, (status, code, method, fields) in broken(relay).items():
        token = await fresh(relay)
        answer = await knock(relay, f"/ws/prices?token={token}", fields, method=method)
        assert (answer.status, answer.code) == (status, code), kind
        assert set(answer.json) == {"code", "message", "retryable"}
        assert answer.all("cache-control") == ["private, no-store"]
        assert await is_unspent(relay, token), kind


async def test_the_answers_say_what_would_be_right(relay: Relay) -> None:
    """426 names websocket in Upgrade (RFC 9110 §15.5.22), 405 names GET in Allow (§15.5.6)."""
    assert (await knock(relay, fields=[("Host", "x")])).all("upgrade") == ["websocket"]
    assert (await knock(relay, method="POST")).all("allow") == ["GET"]


async def test_bytes_that_are_no_http_are_dropped(relay: Relay) -> None:
    """TLS to a plain port, garbage and a body end the connection. Other connections continue."""
    good = upgrade(relay)
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"garbage\r\n\r\n",
        b"\r\n\r\n",
        b"GET /ws/prices HTTP/2.0\r\n\r\n",
        b"GET /ws/prices HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ws/prices HTTP/1.1\r\nA\x00B: c\r\n\r\n",
        b"GET /ws/prices HTTP/1.1\r\nA: \x1b[31m\x01\r\n\r\n",
        b"GET /ws/prices HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        head("GET", "/ws/prices", [*good, ("Content-Length", "5")]) + b"hello",
        head("GET", "/ws/prices", [*good, ("Transfer-Encoding", "chunked")]) + b"0\r\n\r\n",
    ):
        assert (await exchange(relay.ports[1], data)).status in (0, 400), data[:40]
    async with relay.connect():
        pass


async def test_the_order_of_the_checks(relay: Relay) -> None:
    """With several mistakes the first one in the gate's order is named: handshake, path, origin, token."""
    plain, foreign = [("Host", "x")], upgrade(relay, origin="https://evil.example")
    assert (await knock(relay, "/nowhere?token=a&token=b", plain)).status == 426
    assert (await knock(relay, "/nowhere?token=a&token=b", foreign)).status == 404
    assert (await knock(relay, "/ws/prices?token=a&token=b", foreign)).status == 403
    assert (await knock(relay, "/ws/prices?token=a&token=b")).status == 400
    assert (await knock(relay, "/ws/prices?token=a")).status == 401
    events, foreign = asking_for_events(relay), asking_for_events(relay, origin="https://evil.example")
    assert (await knock(relay, "/nowhere?token=a&token=b", [*foreign, ("Host", "x")])).status == 400
    assert (await knock(relay, "/nowhere?token=a&token=b", foreign)).status == 404
    assert (await knock(relay, "/ws/prices?token=a&token=b", foreign)).status == 403
    assert (await knock(relay, "/ws/prices?token=a&token=b", events)).status == 400
    assert (await knock(relay, "/ws/prices?token=a", events)).status == 401


@OVER_EACH_TRANSPORT
async def test_a_token_for_another_endpoint_is_kept(relay: Relay, opening: Opening) -> None:
    """It gets 403 at the wrong endpoint, and works at the right one afterwards."""
    token = await relay.token(endpoint="depth")
    answer = await knock(relay, fields=[*opening.request(relay), opening.bearing(token)])
    assert (answer.status, answer.code) == (403, "forbidden")
    await relay.audited("connect.denied", reason="token_audience")
    assert (
        await knock(relay, "/ws/depth", [*opening.request(relay), opening.bearing(token)])
    ).status == opening.status


async def test_a_refusal_is_one_record(relay: Relay) -> None:
    """connect.denied has reason, status, path, origin and addresses, and nothing of the query or the headers."""
    fields = [
        *upgrade(relay),
        bearing("garbage"),
        ("User-Agent", "test/1"),
        ("X-Forwarded-For", "198.51.100.7"),
    ]
    await knock(relay, "/ws/prices?channels=prices.SECRETCHANNEL", fields)
    record = await relay.recorded(lambda record: record.get("user_agent") == {"original": "test/1"})
    assert (record["event"]["action"], record["event"]["reason"]) == ("connect.denied", "token_malformed")
    assert record["event"]["outcome"] == "failure"
    assert record["http"] == {"response": {"status_code": 401}}
    assert record["url"] == {"path": "/ws/prices"}
    assert (record["client"], record["source"]) == ({"ip": "127.0.0.1"}, {"ip": "127.0.0.1"})
    assert record["relay"]["origin"] == relay.url
    assert record["relay"]["token"] == {"transport": "subprotocol"}
    assert "SECRETCHANNEL" not in str(record)


async def test_a_forwarded_address_of_an_untrusted_peer_is_ignored(relay: Relay) -> None:
    """Without trusted_proxies a client can't hide its address with X-Forwarded-For."""
    await knock(relay, fields=[*upgrade(relay), bearing("x"), ("X-Forwarded-For", "203.0.113.9")])
    assert "203.0.113.9" not in str(relay.audit())
