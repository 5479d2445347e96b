"""One rule for the head of a request on all listeners: its size, its counts, its Host and the spelling of its path."""

import pytest

from tests.support.raw_http import asking_for_events, bearing, exchange, head, knock, upgrade
from tests.support.relay_process import Relay

PATHS = ["/.well-known/jwks.json", "/ws/prices", "/live", "/ws/prices"]
"""A path of each listener: public HTTP, stream, internal; and the stream's again, for an event stream."""
PORTS = [0, 1, 2, 1]
EVENTS = 3
LISTENERS = pytest.mark.parametrize(
    "listener", [0, 1, 2, EVENTS], ids=["http", "stream", "internal", "events"]
)


def fields_of(relay: Relay, listener: int) -> list[tuple[str, str]]:
    """Return the fields that a good request to a listener has."""
    if listener == EVENTS:
        return asking_for_events(relay)
    return upgrade(relay) if listener == 1 else [("Host", "127.0.0.1")]


def good(listener: int) -> set[int]:
    """Return the status of an answer to a good request, which has no token. A WebSocket's can come later."""
    return {{1: 101, EVENTS: 401}.get(listener, 200)}


@LISTENERS
@pytest.mark.parametrize(
    ("more", "is_good"),
    [
        ([("Cookie", f"chunk.{number}={'c' * 4000}") for number in range(3)], True),
        ([("Cookie", "one=" + "c" * 12_000)], True),
        ([("Cookie", "c" * 33_000)], False),
        ([("Cookie", "a=b; " * 190)], True),
        ([("Cookie", "a=b; " * 300)], False),
        ([(f"X-{number}", "x") for number in range(80)], True),
        ([(f"X-{number}", "x") for number in range(110)], False),
    ],
    ids=["12 KB in parts", "12 KB", "33 KB", "190 cookies", "300 cookies", "80 headers", "110 headers"],
)
async def test_heads_have_the_same_bounds(
    relay: Relay, listener: int, more: list[tuple[str, str]], is_good: bool
) -> None:
    """What one listener takes, all take; what is too large gets 431 in the relay's form."""
    data = head("GET", PATHS[listener], [*fields_of(relay, listener), *more])
    answer = await exchange(relay.ports[PORTS[listener]], data)
    assert answer.status in (good(listener) if is_good else {431})
    if not is_good:
        assert answer.code == "too_large"


@LISTENERS
async def test_a_refused_head_is_recorded(relay: Relay, listener: int) -> None:
    """A head that is too large has an audit record with its reason."""
    action = "connect.denied" if PORTS[listener] == 1 else "request.denied"
    source = f"127.0.9.{listener + 1}"
    data = head("GET", PATHS[listener], [*fields_of(relay, listener), ("Cookie", "a=b; " * 300)])
    await exchange(relay.ports[PORTS[listener]], data, source=source)
    found = await relay.recorded(lambda record: record.get("client", {}).get("ip") == source)
    assert found["event"]["action"] == action
    assert found["event"]["reason"] == "head_too_large"


@pytest.mark.parametrize(
    "data", [b"garbage\r\n\r\n", b"GET /ws/prices HTTP/1.1\r\nContent-Length: 5\r\n\r\n"]
)
async def test_a_handshake_that_the_library_refuses_is_answered(relay: Relay, data: bytes) -> None:
    """It gets 400 in the relay's form, and a record."""
    answer = await exchange(relay.ports[1], data, source="127.0.9.9")
    assert (answer.status, answer.code) == (400, "invalid_request")
    await relay.recorded(lambda record: record.get("client", {}).get("ip") == "127.0.9.9")


@LISTENERS
@pytest.mark.parametrize("hosts", [[], ["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "other"]])
async def test_a_request_has_one_host(relay: Relay, listener: int, hosts: list[str]) -> None:
    """Without a Host header or with two the answer is 400."""
    kept = [field for field in fields_of(relay, listener) if field[0] != "Host"]
    data = head("GET", PATHS[listener], [*(("Host", host) for host in hosts), *kept])
    assert (await exchange(relay.ports[PORTS[listener]], data)).status == 400


@LISTENERS
@pytest.mark.parametrize("version", [b"", b" HTTP/0.9", b" HTTP/2.0", b" HTTP/3.0", b" HTTP/1.2"])
async def test_a_request_has_a_version_that_the_relay_speaks(
    relay: Relay, listener: int, version: bytes
) -> None:
    """A request without one or with another one is refused, and the connection is closed."""
    data = head("GET", PATHS[listener], fields_of(relay, listener)).replace(b" HTTP/1.1", version, 1)
    answer = await exchange(relay.ports[PORTS[listener]], data)
    assert answer.status == 400
    assert answer.all("connection") == ["close"]


@LISTENERS
@pytest.mark.parametrize("escape", ["%{:02x}", "%{:02X}"])
async def test_a_path_has_one_spelling(relay: Relay, listener: int, escape: str) -> None:
    """A path with any of its characters escaped is another path, which does not exist."""
    path = PATHS[listener]
    for place, character in enumerate(path[1:], 1):
        other = path[:place] + escape.format(ord(character)) + path[place + 1 :]
        answer = await exchange(relay.ports[PORTS[listener]], head("GET", other, fields_of(relay, listener)))
        assert answer.status == 404, other


async def test_an_ordinary_handshake_passes(relay: Relay) -> None:
    """The bounds leave room for a browser's own headers and its token."""
    assert (await knock(relay, fields=[*upgrade(relay), bearing(await relay.token())])).status == 101
