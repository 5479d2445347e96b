"""Publishing from a browser's socket: it only receives, whatever it sends and wherever its token is shown."""

import json
from typing import Any

import pytest

from tests.support.raw_http import bearing, exchange, head, knock, upgrade
from tests.support.relay_process import PUBLISHER_KEY, Relay

CHANNEL = "prices.FORGED"
TICK: dict[str, Any] = {"channel": CHANNEL, "epoch": "x", "seq": 99, "ts": 1, "data": "forged"}
FORGERIES: list[dict[str, Any]] = [
    *({"type": kind, **TICK} for kind in ("publish", "update", "snapshot", "message", "PUBLISH", "Update")),
    {"type": "publish", "id": 1, **TICK, "token": PUBLISHER_KEY},
    {"type": "publish", "messages": [TICK]},
    {"type": "status", "channel": CHANNEL, "state": "stale", "since": 1},
    {"type": "reconnect", "delay_ms": 1},
    {"type": "subscribe", "id": 2, "channels": [CHANNEL], "data": "forged", "seq": 99},
    {"type": "ping", "id": 3, **TICK},
]


async def test_nothing_that_a_browser_sends_is_fanned_out(relay: Relay) -> None:
    """Frames that publishers or the relay itself would send are errors, and the next tick is a publisher's own."""
    async with (
        relay.connect(query=f"?channels={CHANNEL}") as victim,
        relay.connect(query=f"?channels={CHANNEL}") as attacker,
    ):
        for socket in (victim, attacker):
            assert (await socket.read("subscribed"))["channels"][0]["seq"] == 0
        for frame in FORGERIES:
            await attacker.send(**frame)
        answers = [await attacker.next() for _ in FORGERIES]
        codes = [answer.get("code") for answer in answers]
        assert codes == ["unknown_type"] * 10 + [None] * 2
        assert [answer["type"] for answer in answers[-2:]] == ["subscribed", "pong"]
        await relay.publish(CHANNEL, "real")
        for socket in (victim, attacker):
            snapshot = await socket.read("snapshot")
            assert (snapshot["data"], snapshot["seq"]) == ("real", 1)


@pytest.mark.parametrize("path", ["/v1/publish", "/v1/publish/batch", "/v1/ingest", "/ws/publish"])
async def test_no_listener_that_browsers_reach_takes_a_publication(relay: Relay, path: str) -> None:
    """Neither the stream's nor the public one has such a path, with a scoped token or with a publisher's own key."""
    token = await relay.token()
    assert (await knock(relay, path, [*upgrade(relay), bearing(token)])).status == 404
    body = json.dumps(TICK).encode()
    for port in relay.ports[:2]:
        for credential in (token, PUBLISHER_KEY, relay.session()):
            fields = [
                ("Host", "127.0.0.1"),
                ("Origin", relay.url),
                ("Authorization", f"Bearer {credential}"),
                ("Content-Length", str(len(body))),
            ]
            # the stream's listener refuses a handshake with a body (400); elsewhere there is no such path
            assert (await exchange(port, head("POST", path, fields) + body)).status in (400, 404, 405)


async def test_a_scoped_token_is_no_publishers_key(relay: Relay) -> None:
    """401 from the internal listener, in whatever form it is sent, and 403 as soon as a browser sends it."""
    token = await relay.token()
    body = json.dumps({"channel": CHANNEL, "data": "forged"}).encode()
    for value in (
        f"Bearer {token}",
        f"Bearer pricing.{token}",
        f"Bearer {token.split('.')[0]}.{token}",
        token,
    ):
        fields = [
            ("Host", "127.0.0.1"),
            ("Authorization", value),
            ("Content-Length", str(len(body))),
        ]
        assert (await exchange(relay.ports[2], head("POST", "/v1/publish", fields) + body)).status == 401
        fields.append(("Origin", relay.url))
        assert (await exchange(relay.ports[2], head("POST", "/v1/publish", fields) + body)).status == 403


async def test_a_publisher_has_its_channels_alone(relay: Relay) -> None:
    """A key opens the channels of its settings: others, patterns and other spellings are refused one by one."""
    for channel in (
        "depth.A",
        "prices",
        "prices.>",
        "prices.*",
        "PRICES.A",
        ">",
        "prices.\u0410",
        "prices..A",
        "",
    ):
        answer = await relay.publish(channel, 1)
        assert answer.status_code in (400, 403), channel
        assert answer.json()["code"] in ("forbidden", "invalid_request")
