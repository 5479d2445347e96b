"""Keys from a JWKS address: how often it is asked, what is believed while it is away, and where it may be."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.core.jws import VerifyKey
from relay.keys import jwks_client
from relay.keys.jwks import from_jwks, key_id, to_jwks, verify_key
from relay.keys.jwks_client import (
    COOL_DOWN_S,
    REFRESH_S,
    RETRY_S,
    STALE_S,
    WAIT_S,
    JwksClient,
    check_jwks_url,
)
from tests.support.backends import Backend, Clock, ScriptedBackend, http_answer, running_backend
from tests.support.ports import free_ports

ONE, TWO = (verify_key(Ed25519PrivateKey.generate().public_key()) for _ in range(2))


@pytest.fixture
async def publisher() -> AsyncIterator[Backend]:
    """Somebody who publishes key ONE."""
    async with running_backend("/jwks.json") as running:
        publish(running, ONE)
        yield running


@pytest.fixture
def clock() -> Clock:
    """The client's clock."""
    return Clock()


@pytest.fixture
async def client(publisher: Backend, clock: Clock) -> AsyncIterator[JwksClient]:
    """A client of that publisher's."""
    client = JwksClient(publisher.url, read=from_jwks, clock=clock)
    yield client
    await client.aclose()


def publish(publisher: Backend, *keys: VerifyKey) -> None:
    """Publish these keys from now on."""
    publisher.answers(to_jwks({key.kid: key for key in keys}))


async def unavailable(client: JwksClient, kid: str = ONE.kid) -> str:
    """Check that it can't be told whether there is such a key, and return why."""
    with pytest.raises(UnavailableError) as raised:
        await client.key(kid)
    assert raised.value.reason is Reason.BACKEND_UNAVAILABLE
    return str(raised.value)


async def settled(client: JwksClient) -> None:
    """Wait for the fetch that is under way, if there is one."""
    if client._fetching:
        await asyncio.wait({client._fetching})


# --- how often


async def test_a_key_is_fetched_once(publisher: Backend, client: JwksClient) -> None:
    """Nothing is asked before the first need, and then one answer does for all."""
    assert publisher.calls == []
    for _ in range(3):
        assert await client.key(ONE.kid) == ONE
    assert publisher.calls == [""]


async def test_a_hundred_at_once(publisher: Backend, client: JwksClient) -> None:
    """They share one fetch, whichever key they ask for."""
    publisher.hold()
    waiting = [asyncio.create_task(client.key(kid)) for kid in [ONE.kid, "other"] * 50]
    await publisher.called(1)
    publisher.release()
    found = await asyncio.gather(*waiting)
    assert found == [ONE, None] * 50
    assert len(publisher.calls) == 1


async def test_unknown_kids_cause_one_fetch_in_a_cool_down(
    publisher: Backend, client: JwksClient, clock: Clock
) -> None:
    """However many come, the publisher is asked once in a cool-down; known kids are answered all the while."""
    assert await client.key(ONE.kid) == ONE
    for index in range(50):
        assert await client.key(f"made-up-{index}") is None
        assert await client.key(ONE.kid) == ONE
    assert len(publisher.calls) == 2
    clock.now += COOL_DOWN_S
    assert await client.key("made-up") is None
    assert len(publisher.calls) == 3


async def test_known_kids_do_not_wait_for_a_look(publisher: Backend, client: JwksClient) -> None:
    """While the publisher is asked about a made-up kid, and hangs, a known one is answered."""
    await client.key(ONE.kid)
    publisher.hold()
    looking = asyncio.create_task(client.key("made-up"))
    await publisher.called(2)
    assert await client.key(ONE.kid) == ONE
    assert not looking.done()
    publisher.release()
    assert await looking is None


# --- rotation


async def test_a_new_key_is_found_at_once(publisher: Backend, client: JwksClient) -> None:
    """The first token that it signed makes the client look."""
    await client.key(ONE.kid)
    publish(publisher, ONE, TWO)
    assert await client.key(TWO.kid) == TWO


async def test_a_withdrawn_key_is_gone_after_a_minute(
    publisher: Backend, client: JwksClient, clock: Clock
) -> None:
    """Behind the callers' backs: the one who comes as it is due still gets an answer at once."""
    await client.key(ONE.kid)
    publish(publisher, TWO)
    clock.now += REFRESH_S - 1
    assert await client.key(ONE.kid) == ONE
    assert len(publisher.calls) == 1
    clock.now += 1
    assert await client.key(ONE.kid) == ONE
    await settled(client)
    assert await client.key(ONE.kid) is None
    assert await client.key(TWO.kid) == TWO


async def test_after_an_idle_hour(publisher: Backend, client: JwksClient, clock: Clock) -> None:
    """The first who comes waits for the refresh, or a key withdrawn long ago would be believed once more."""
    await client.key(ONE.kid)
    publish(publisher, TWO)
    clock.now += WAIT_S
    assert await client.key(ONE.kid) is None


# --- while the publisher is away


async def test_keys_outlive_the_publisher_for_an_hour(
    publisher: Backend, client: JwksClient, clock: Clock
) -> None:
    """Known keys are valid for that time and not a second longer, and the requests in that time are bounded."""
    await client.key(ONE.kid)
    publisher.answers(status=500)
    for _ in range(int(STALE_S / 30) - 1):
        clock.now += 30
        assert await client.key(ONE.kid) == ONE
        assert await client.key(ONE.kid) == ONE
        await settled(client)
    assert len(publisher.calls) <= 1 + STALE_S / 30
    clock.now += 29
    assert await client.key(ONE.kid) == ONE
    await settled(client)
    clock.now += 1
    assert "500" in await unavailable(client)
    publish(publisher, ONE)
    clock.now += RETRY_S
    assert await client.key(ONE.kid) == ONE


async def test_an_unknown_kid_while_the_publisher_is_away(
    publisher: Backend, client: JwksClient, clock: Clock
) -> None:
    """It may be the newest key's: "unknown" would end a good session."""
    await client.key(ONE.kid)
    publisher.answers(status=503)
    assert "503" in await unavailable(client, TWO.kid)
    assert "503" in await unavailable(client, TWO.kid)
    assert len(publisher.calls) == 2
    publish(publisher, ONE, TWO)
    clock.now += COOL_DOWN_S
    assert await client.key(TWO.kid) == TWO


async def test_a_failure_is_not_repeated_by_each_caller(
    publisher: Backend, client: JwksClient, clock: Clock
) -> None:
    """Without any key, too, the publisher gets two seconds of rest; then it is asked again."""
    publisher.answers(status=500)
    for _ in range(20):
        await unavailable(client)
    assert len(publisher.calls) == 1
    publish(publisher, ONE)
    clock.now += RETRY_S
    assert await client.key(ONE.kid) == ONE


async def test_a_publisher_that_hangs(publisher: Backend, client: JwksClient, clock: Clock) -> None:
    """Those who have their key do not notice."""
    await client.key(ONE.kid)
    publisher.hold()
    clock.now += REFRESH_S
    for _ in range(3):
        assert await client.key(ONE.kid) == ONE
    await publisher.called(2)
    assert await client.key(ONE.kid) == ONE


async def test_a_refused_connection_is_reported_in_one_sentence() -> None:
    """A refused connection is said in one sentence."""
    [port] = free_ports(1)
    client = JwksClient(f"http://127.0.0.1:{port}/jwks.json", read=from_jwks)
    assert "did not answer" in await unavailable(client)
    await client.aclose()


async def test_the_end_of_the_service(publisher: Backend, client: JwksClient) -> None:
    """Who waits for a fetch when the client is closed gets an answer all the same."""
    publisher.hold()
    waiting = asyncio.create_task(client.key(ONE.kid))
    await publisher.called(1)
    await client.aclose()
    with pytest.raises(UnavailableError):
        await waiting


# --- documents


def private() -> dict[str, Any]:
    """Return a set whose publisher has lost a key."""
    document = to_jwks({ONE.kid: ONE})
    document["keys"][0]["d"] = "A" * 43
    return document


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *[(b"", 200), (b"<html>", 200), (b"[]", 200), (b'{"keys":[],"keys":[]}', 200), (b"{}", 200)],
        *[(json.dumps(to_jwks({ONE.kid: ONE})).encode() + b" " * 65_536, 200), (private(), 200)],
        *[({"keys": [1]}, 200), (to_jwks({ONE.kid: ONE}), 203), (to_jwks({ONE.kid: ONE}), 302)],
        *[(to_jwks({ONE.kid: ONE}), 404), (b'{"a":' * 9000, 200)],
    ],
    ids=range(12),
)
async def test_documents_that_are_no_keys(
    publisher: Backend, client: JwksClient, clock: Clock, body: Any, status: int
) -> None:
    """Too long, no JSON, another status, a redirect, a private key: nothing of it is taken, the old keys stay."""
    await client.key(ONE.kid)
    publisher.answers(body, status=status, headers={"location": "/elsewhere"})
    clock.now += WAIT_S
    assert await client.key(ONE.kid) == ONE
    assert len(publisher.calls) == 2  # a redirect was not followed
    assert "JWKS address" in await unavailable(client, "other")


async def test_a_set_that_never_ends() -> None:
    """64 KiB are read and no more."""
    backend = ScriptedBackend()
    endless = http_answer(200, b"")[: -len(b"\r\n")].replace(
        b"Content-Length: 0", b"Content-Length: 99999999"
    )
    async with backend.answering(endless + b"\r\n" + b" " * 200_000, hang=True):
        client = JwksClient(f"{backend.origin}/jwks.json", read=from_jwks)
        assert "65536 bytes" in await unavailable(client)
        await client.aclose()


async def test_a_set_that_comes_a_byte_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole of it, and not for each byte."""
    monkeypatch.setattr(jwks_client, "TIMEOUT_S", 0.2)
    backend = ScriptedBackend()
    async with backend.answering(http_answer(200, to_jwks({ONE.kid: ONE})), drip_s=0.01):
        client = JwksClient(f"{backend.origin}/jwks.json", read=from_jwks)
        assert "TimeoutError" in await unavailable(client)
        await client.aclose()


# --- addresses


@pytest.mark.parametrize(
    "url",
    [
        *["https://id.example.com/.well-known/jwks.json", "https://id.example.com:8443/keys?v=2"],
        *[
            "http://localhost:9000/jwks",
            "http://127.0.0.1/jwks",
            "http://127.9.9.9:1/",
            "http://[::1]:80/jwks",
        ],
    ],
)
def test_addresses_that_keys_may_come_from(url: str) -> None:
    """Over https from anywhere, over http from this machine."""
    assert check_jwks_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *["http://id.example.com/jwks", "http://localhost.example.com/", "http://127.0.0.1.example.com/"],
        *[
            "http://10.0.0.1/jwks",
            "http://[::2]/",
            "http://0.0.0.0/",
            "ftp://localhost/",
            "file:///etc/passwd",
        ],
        *["https://user@id.example.com/", "https://user:x@id.example.com/", "https://id.example.com/#a"],
        *["https:///jwks", "https://", "jwks.json", "", "https://id.example.com:99999/", "https://[::1/"],
        *["https://id.exa mple.com/", "https://id.example.com/\r\nX: y", "https://b\u00fccher.example/"],
        "http://2130706433/",
    ],
)
def test_addresses_that_keys_must_not_come_from(url: str) -> None:
    """An attacker who can change the answer on the network could sign any token."""
    with pytest.raises(ConfigurationError) as raised:
        JwksClient(url, read=from_jwks)
    assert str(raised.value).startswith("A JWKS URL must")


def test_the_fixtures_keys_differ() -> None:
    """Two keys, two names."""
    assert key_id(ONE.key) == ONE.kid != TWO.kid
