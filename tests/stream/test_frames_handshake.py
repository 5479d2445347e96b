"""The opening handshake of RFC 6455 §4.2, as a server reads and answers it. More refusals are in tests/gate."""

import contextlib

import pytest
from websockets.frames import Opcode

from tests.support.raw_http import bearing, exchange, fresh, is_unspent, knock, upgrade
from tests.support.raw_websocket import masked, open_raw_websocket
from tests.support.relay_process import Relay

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""§1.3: the answer to the key `dGhlIHNhbXBsZSBub25jZQ==`."""


def changed(relay: Relay, **fields: str) -> list[tuple[str, str]]:
    """Return a good handshake's fields with other values, by their names without the hyphens."""
    return [(name, fields.get(name.replace("-", ""), value)) for name, value in upgrade(relay)]


async def test_the_answer_is_the_rfcs(relay: Relay) -> None:
    """§4.2.2: 101, Upgrade, Connection, the accept value of §1.3; and no extension or protocol that was not offered."""
    answer = await knock(relay)
    assert (answer.status, answer.body) == (101, b"")
    assert answer.all("Upgrade") == ["websocket"]
    assert answer.all("Connection") == ["Upgrade"]
    assert answer.all("Sec-WebSocket-Accept") == [ACCEPT]
    for absent in ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Content-Length", "Server"):
        assert answer.all(absent) == []


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover, permessage-deflate",
        "x-webkit-deflate-frame",
        'permessage-bzip2, foo; bar="baz"',
    ],
)
async def test_offered_extensions_are_declined(relay: Relay, offer: str) -> None:
    """§9.1: the server accepts no extension with any parameters, and the handshake succeeds."""
    fields = [*upgrade(relay), ("Sec-WebSocket-Extensions", offer), bearing(await fresh(relay))]
    answer = await knock(relay, fields=fields)
    assert answer.status == 101
    assert answer.all("Sec-WebSocket-Extensions") == []
    assert answer.all("Sec-WebSocket-Protocol") == ["relay.v1"]


async def test_names_and_tokens_have_no_case(relay: Relay) -> None:
    """§4.2.1: `Upgrade: WebSocket`, `Connection: keep-alive, UPGRADE` (Firefox), names in any case, spaces or none."""
    for fields in (
        changed(relay, Upgrade="WebSocket"),
        changed(relay, Connection="keep-alive, UPGRADE"),
        [(name.upper(), value) for name, value in upgrade(relay)],
        [(name.lower(), f"\t {value} ") for name, value in upgrade(relay)],
    ):
        answer = await knock(relay, fields=fields)
        assert (answer.status, answer.all("Sec-WebSocket-Accept")) == (101, [ACCEPT])


async def test_a_lower_http_version_is_no_handshake(relay: Relay) -> None:
    """§4.2.1: HTTP/1.1 or higher; what is asked for over HTTP/1.0, 0.9 or 2.0 keeps its token."""
    token = await fresh(relay)
    for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", ""):
        data = f"GET /ws/prices?token={token} {version}\r\n".encode()
        data += b"".join(f"{name}: {value}\r\n".encode() for name, value in upgrade(relay)) + b"\r\n"
        answer = await exchange(relay.ports[1], data)
        assert answer.status in (0, 400, 426, 505), version
    assert await is_unspent(relay, token)


@pytest.mark.parametrize("version", ["8", "14", "0", "13, 8", "x", ""])
async def test_another_version_is_told_the_right_one(relay: Relay, version: str) -> None:
    """§4.2.2 and §4.4: the refusal names the version that the server speaks."""
    answer = await knock(relay, fields=changed(relay, SecWebSocketVersion=version))
    assert answer.status in (400, 426)
    assert answer.all("Sec-WebSocket-Version") == ["13"]


@pytest.mark.parametrize(
    "hosts", [[], ["a", "b"], ["127.0.0.1", "127.0.0.1"]], ids=["none", "two", "one twice"]
)
async def test_a_handshake_names_one_host(relay: Relay, hosts: list[str]) -> None:
    """§4.2.1, and RFC 9112 §3.2: without exactly one Host header it is 400, and the token is kept."""
    token = await fresh(relay)
    fields = [field for field in upgrade(relay) if field[0] != "Host"]
    answer = await knock(relay, fields=[*fields, *(("Host", host) for host in hosts), bearing(token)])
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert await is_unspent(relay, token)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CLOSE], ids=lambda opcode: opcode.name)
async def test_nothing_is_answered_before_the_handshake(relay: Relay, opcode: Opcode) -> None:
    """§4.1: a client waits for the answer. A control frame before it ends the connection without one."""
    token = await fresh(relay)
    target = f"/ws/prices?token={token}"
    async with open_raw_websocket(relay.ports[1], target, origin=relay.url, behind=masked(opcode)) as wire:
        with contextlib.suppress(ConnectionResetError):
            assert await wire.reader.read() == b""
    # what was sent too early changes nothing for the next client
    async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
        assert await wire.shake() == 101
