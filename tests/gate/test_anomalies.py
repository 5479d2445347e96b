"""Anomaly marks in the audit log: each follows from a real connect, and none refuses a connection."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.raw_http import bearing, head, knock, post, upgrade
from tests.support.raw_websocket import open_raw_websocket, text
from tests.support.relay_process import Relay, make_relay
from tests.support.shared_relay import assert_quiet

HERE, ELSEWHERE, REFUSED = "127.0.0.1", "127.0.0.6", "127.0.0.7"
OTHER_ORIGIN = "http://other.example"
BROWSER = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/145.0")
OTHER_BROWSER = ("User-Agent", "curl/8.5.0")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with two origins that may connect."""
    relay = make_relay(tmp_path_factory.mktemp("marks"))
    relay.environment["RELAY_PUBLIC__ALLOWED_ORIGINS"] = json.dumps([relay.url, OTHER_ORIGIN])
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)


async def token(relay: Relay, user: str, **body: Any) -> str:
    """Return a token that a browser took for its user, from the application's page."""
    fields = [
        ("Origin", relay.url),
        ("Cookie", f"access-token={relay.session(sub=user)}"),
        ("Content-Type", "application/json"),
        BROWSER,
    ]
    answer = await post(relay, "/auth/ws-token", fields, body=json.dumps(body).encode())
    return str(answer.json["wsToken"])


async def connect(
    relay: Relay,
    text: str,
    *,
    browser: tuple[str, str] = BROWSER,
    origin: str | None = None,
    path: str = "/ws/prices",
    source: str = HERE,
) -> int:
    """Connect with a token; returns the status."""
    fields = [*upgrade(relay, origin=origin), bearing(text), browser]
    return (await knock(relay, path, fields, source=source)).status


async def marks(relay: Relay, user: str, action: str) -> list[str]:
    """Return the anomaly marks of a user's audit event; an empty list if it has none."""

    def wanted(record: dict[str, Any]) -> bool:
        return record.get("user") == {"id": user} and record["event"]["action"] == action

    found: list[str] = (await relay.recorded(wanted))["relay"].get("anomalies", [])
    return found


def somebody() -> str:
    """Return the name of a user of no other test."""
    return f"user-{secrets.token_hex(4)}"


async def test_an_ordinary_connect_has_no_mark(relay: Relay) -> None:
    """A browser that connects with its own token has no mark, and neither has its end."""
    user = somebody()
    assert await connect(relay, await token(relay, user)) == 101
    for action in ("token.issued", "connect.accepted", "connection.closed"):
        assert await marks(relay, user, action) == []


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"source": ELSEWHERE}, ["other_address"]),
        ({"browser": OTHER_BROWSER}, ["other_browser"]),
        ({"source": ELSEWHERE, "browser": OTHER_BROWSER}, ["other_address", "other_browser"]),
    ],
)
async def test_a_connection_from_another_address_is_accepted_and_marked(
    relay: Relay, how: dict[str, Any], expected: list[str]
) -> None:
    """Telephones change networks. So the mark is for the readers of the log, and refuses no connection."""
    user = somebody()
    assert await connect(relay, await token(relay, user), **how) == 101
    assert await marks(relay, user, "connect.accepted") == expected


@pytest.mark.parametrize(
    ("how", "status", "expected"),
    [
        ({"path": "/ws/depth"}, 403, ["wrong_endpoint"]),
        ({"origin": OTHER_ORIGIN}, 403, ["origin_mismatch"]),
        ({"origin": ""}, 403, ["origin_mismatch"]),
        ({"path": "/ws/depth", "source": ELSEWHERE}, 403, ["wrong_endpoint", "other_address"]),
    ],
)
async def test_a_misused_token_is_refused_and_marked(
    relay: Relay, how: dict[str, Any], status: int, expected: list[str]
) -> None:
    """The audit event also names the token's user."""
    user = somebody()
    assert await connect(relay, await token(relay, user), **how) == status
    assert await marks(relay, user, "connect.denied") == expected


async def test_a_replay_is_marked(relay: Relay) -> None:
    """The second use is refused. If it came from another machine, a mark says so."""
    user = somebody()
    stolen = await token(relay, user)
    assert await connect(relay, stolen) == 101
    assert await connect(relay, stolen, source=ELSEWHERE, browser=OTHER_BROWSER) == 401
    assert await marks(relay, user, "connect.accepted") == []
    assert await marks(relay, user, "connect.denied") == ["replay", "other_address", "other_browser"]


async def test_a_token_that_was_handed_on_is_compared_with_nothing(relay: Relay) -> None:
    """A server-side caller takes tokens for browsers, so another client connects every time."""
    user = somebody()
    text = await relay.token(relay.session(sub=user))
    assert await connect(relay, text, source=ELSEWHERE, browser=OTHER_BROWSER) == 101
    assert await marks(relay, user, "connect.accepted") == []


async def test_a_refresh_is_compared_too(relay: Relay) -> None:
    """A connection that is refreshed with another browser's token is marked, and continues."""
    user = somebody()
    first, second = await token(relay, user), await token(relay, user)
    target = f"/ws/prices?token={first}"
    async with open_raw_websocket(relay.ports[1], target, origin=relay.url) as wire:  # sends no User-Agent
        assert await wire.shake() == 101
        await wire.message("welcome")
        wire.send(text(type="refresh", id=1, token=second))
        await wire.message("refreshed")
    assert await marks(relay, user, "connect.accepted") == ["other_browser"]
    assert await marks(relay, user, "connection.refreshed") == ["other_browser"]


async def test_a_first_message_is_compared_too(relay: Relay) -> None:
    """The mark does not depend on the transport of the token."""
    user = somebody()
    async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
        assert await wire.shake() == 101
        wire.send(text(type="auth", token=await token(relay, user)))
        await wire.message("welcome")
    assert await marks(relay, user, "connect.accepted") == ["other_browser"]


async def test_a_burst_of_denials_is_marked(relay: Relay) -> None:
    """The twentieth refusal of an address within a minute is marked; nineteen are not."""
    garbage = head("GET", "/nowhere", upgrade(relay))
    for _ in range(25):
        reader, writer = await asyncio.open_connection(HERE, relay.ports[1], local_addr=(REFUSED, 0))
        writer.write(garbage)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    def from_there(record: dict[str, Any]) -> bool:
        return record.get("client") == {"ip": REFUSED}

    await relay.recorded(lambda record: from_there(record) and "anomalies" in record["relay"])
    found = [record["relay"].get("anomalies") for record in relay.audit() if from_there(record)]
    assert found[:19] == [None] * 19
    assert set(map(str, found[19:])) == {"['denial_burst']"}
