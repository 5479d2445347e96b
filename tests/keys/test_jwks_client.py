"""Keys from a JWKS address: how often it is asked, what is believed while it is away, and where it may be."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.core.jwk_set import NoKey
from relay.core.jws import VerifyKey
from relay.keys import jwks_client
from relay.keys.jwks import key_id, read_published, to_jwks, verify_key
from relay.keys.jwks_client import (
    COOL_DOWN_S,
    LOOK_EVERY_S,
    LOOKS,
    MAX_BYTES,
    RETRY_S,
    SETTLE_S,
    STALE_S,
    WAIT_S,
    JwksClient,
)
from relay.keys.jwks_url import check_jwks_url
from relay.keys.lifecycle import REFRESH_S
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
    client = JwksClient(publisher.url, read=read_published, clock=clock)
    yield client
    await client.aclose()


def publish(publisher: Backend, *keys: VerifyKey) -> None:
    """Publish these keys from now on."""
    publisher.answers(to_jwks({key.kid: key for key in keys}))


async def unknown(client: JwksClient, kid: str, *, caller: str = "") -> bool:
    """Tell whether the answer is that there is no such key."""
    return isinstance(await client.key(kid, caller=caller), NoKey)


async def unavailable(
    client: JwksClient, kid: str = ONE.kid, *, caller: str = "", fault: bool = False
) -> str:
    """Check that it can't be told whether there is such a key, and return why."""
    with pytest.raises(UnavailableError) as raised:
        await client.key(kid, caller=caller)
    assert raised.value.reason is (Reason.BACKEND_FAULT if fault else Reason.BACKEND_UNAVAILABLE)
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
    assert found[::2] == [ONE] * 50
    assert all(isinstance(answer, NoKey) for answer in found[1::2])
    assert len(publisher.calls) == 1


async def test_unknown_kids_cause_one_fetch_in_a_cool_down(
    publisher: Backend, client: JwksClient, clock: Clock
) -> None:
    """However many come from one network, the publisher is asked once in a cool-down. The others hear "not now"."""
    assert await client.key(ONE.kid) == ONE
    assert await unknown(client, "made-up", caller="2001:db8::1")
    for index in range(50):
        assert "asks again" in await unavailable(client, f"made-up-{index}", caller=f"2001:db8::{index}")
        assert await client.key(ONE.kid) == ONE
    assert len(publisher.calls) == 2
    clock.now += COOL_DOWN_S
    assert await unknown(client, "made-up", caller="2001:db8::2")
    assert len(publisher.calls) == 3


async def test_made_up_kids_do_not_starve_a_new_key(
    publisher: Backend, client: JwksClient, clock: Clock
) -> None:
    """A stranger's kids use up the stranger's budget. A token of a new key from elsewhere is accepted at once."""
    await client.key(ONE.kid)
    assert await unknown(client, "made-up", caller="198.51.100.7")
    publish(publisher, ONE, TWO)
    await unavailable(client, "made-up-2", caller="198.51.100.7")
    assert await client.key(TWO.kid, caller="192.0.2.1") == TWO


async def test_made_up_kids_from_everywhere(publisher: Backend, client: JwksClient, clock: Clock) -> None:
    """From a thousand networks, too, the publisher is asked a few times. A new key is known after three seconds."""
    await client.key(ONE.kid)
    for index in range(1000):
        try:
            await client.key(f"made-up-{index}", caller=f"10.0.{index // 256}.{index % 256}")
        except UnavailableError:
            continue
    assert len(publisher.calls) == 1 + LOOKS
    publish(publisher, ONE, TWO)
    await unavailable(client, TWO.kid, caller="192.0.2.1")
    clock.now += LOOK_EVERY_S
    assert await unknown(client, "made-up", caller="10.9.9.9")  # also if a stranger causes the request
    assert await client.key(TWO.kid, caller="192.0.2.1") == TWO
    assert len(publisher.calls) == 2 + LOOKS


async def test_a_publisher_that_serves_an_old_set_for_a_moment(publisher: Backend, clock: Clock) -> None:
    """A kid counts as unknown when two looks without a result lie ten seconds apart. Until then it is "not now"."""
    client = JwksClient(publisher.url, read=read_published, settle_s=SETTLE_S, clock=clock)
    await client.key(ONE.kid)
    await unavailable(client, TWO.kid, caller="192.0.2.1")
    clock.now += 3
    await unavailable(client, TWO.kid, caller="192.0.2.2")
    publish(publisher, ONE, TWO)
    clock.now += 3
    assert await client.key(TWO.kid, caller="192.0.2.3") == TWO
    await unavailable(client, "withdrawn")
    clock.now += SETTLE_S
    assert await unknown(client, "withdrawn")
    await client.aclose()


async def test_known_kids_do_not_wait_for_a_look(publisher: Backend, client: JwksClient) -> None:
    """While the publisher is asked about a made-up kid, and hangs, a known one is answered."""
    await client.key(ONE.kid)
    publisher.hold()
    looking = asyncio.create_task(client.key("made-up"))
    await publisher.called(2)
    assert await client.key(ONE.kid) == ONE
    assert not looking.done()
    publisher.release()
    assert isinstance(await looking, NoKey)


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
    assert await unknown(client, ONE.kid)
    assert await client.key(TWO.kid) == TWO


async def test_after_an_idle_hour(publisher: Backend, client: JwksClient, clock: Clock) -> None:
    """The first who comes waits for the refresh, or a key withdrawn long ago would be believed once more."""
    await client.key(ONE.kid)
    publish(publisher, TWO)
    clock.now += WAIT_S
    assert await unknown(client, ONE.kid)


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
    client = JwksClient(f"http://127.0.0.1:{port}/jwks.json", read=read_published)
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
        *[(json.dumps(to_jwks({ONE.kid: ONE})).encode() + b" " * MAX_BYTES, 200)],
        *[(to_jwks({ONE.kid: ONE}), 203), (to_jwks({ONE.kid: ONE}), 302)],
        *[(to_jwks({ONE.kid: ONE}), 404), (b'{"a":' * 9000, 200)],
        *[({"keys": [{}] * 501}, 200), ({"jwks_uri": "https://id.example.com/jwks"}, 200)],
    ],
    ids=range(12),
)
async def test_documents_that_are_no_keys(
    publisher: Backend, client: JwksClient, clock: Clock, body: Any, status: int
) -> None:
    """Too long, no JSON, another status, a redirect: nothing of it is taken, the old keys stay."""
    await client.key(ONE.kid)
    publisher.answers(body, status=status, headers={"location": "/elsewhere"})
    clock.now += WAIT_S
    assert await client.key(ONE.kid) == ONE
    assert len(publisher.calls) == 2  # a redirect was not followed
    assert "JWKS address" in await unavailable(client, "other")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (private(), "private or secret key. It is now public"),
        ({"keys": []}, "no key that can be used, because it is empty"),
        ({"keys": [1, {"kty": "RSA"}]}, "key 1: it is not a JSON object; key 2: it is not an Ed25519 key"),
    ],
    ids=["a private key", "empty", "no usable key"],
)
async def test_sets_that_end_all_keys(
    publisher: Backend,
    client: JwksClient,
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
    body: Any,
    said: str,
) -> None:
    """They are no outage: the cached keys are not valid any more, and the log says why, once."""
    await client.key(ONE.kid)
    publisher.answers(body)
    clock.now += WAIT_S
    for _ in range(3):
        assert said in await unavailable(client)
        clock.now += RETRY_S
    assert capsys.readouterr().out.count("keys could not be fetched") == 1
    publish(publisher, ONE)
    assert await client.key(ONE.kid) == ONE


async def test_a_set_that_never_ends() -> None:
    """1 MiB is read and no more."""
    backend = ScriptedBackend()
    endless = http_answer(200, b"")[: -len(b"\r\n")].replace(
        b"Content-Length: 0", b"Content-Length: 99999999"
    )
    async with backend.answering(endless + b"\r\n" + b" " * (MAX_BYTES + 1), hang=True):
        client = JwksClient(f"{backend.origin}/jwks.json", read=read_published)
        assert f"{MAX_BYTES} bytes" in await unavailable(client, fault=True)
        await client.aclose()


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        *[(b"", 404, True), (b"", 301, True), (b"", 401, True), (b"<html>", 200, True), (b"{}", 200, True)],
        *[(b"", 500, False), (b"", 503, False), (b"", 429, False), (b"", 408, False)],
    ],
)
async def test_a_fault_that_comes_again(
    publisher: Backend, client: JwksClient, body: bytes, status: int, *, fault: bool
) -> None:
    """A wrong path or a page in HTML is no outage: without any keys, callers need not try again."""
    publisher.answers(body, status=status)
    await unavailable(client, fault=fault)
    await unavailable(client, fault=fault)
    assert len(publisher.calls) == 1


async def test_a_set_that_comes_a_byte_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole of it, and not for each byte."""
    monkeypatch.setattr(jwks_client, "TIMEOUT_S", 0.2)
    backend = ScriptedBackend()
    async with backend.answering(http_answer(200, to_jwks({ONE.kid: ONE})), drip_s=0.01):
        client = JwksClient(f"{backend.origin}/jwks.json", read=read_published)
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
        JwksClient(url, read=read_published)
    assert str(raised.value).startswith("A JWKS URL must")


@pytest.mark.parametrize(
    "url",
    [
        *["http://10.0.0.1/jwks", "http://172.16.9.9:8080/", "http://192.168.1.1/", "http://100.64.0.1/jwks"],
        *["http://[fd00::1]/jwks", "http://keycloak:8080/realms/a/certs", "http://id.corp.example.com/jwks"],
        *["https://id.example.com/", "http://localhost:9000/jwks"],
    ],
)
def test_addresses_in_a_private_network(url: str) -> None:
    """Plain http is allowed there if a setting says so. A name is looked up when keys are fetched."""
    assert check_jwks_url(url, private_http=True) == url


@pytest.mark.parametrize(
    "url",
    ["http://8.8.8.8/jwks", "http://0.0.0.0/", "http://[2606:4700::1]/", "http://172.32.0.1/", "ftp://a/"],
)
def test_public_addresses_are_not_private(url: str) -> None:
    """The setting is for private networks."""
    with pytest.raises(ConfigurationError, match="must begin with https"):
        check_jwks_url(url, private_http=True)


@pytest.mark.parametrize(
    ("address", "private"), [("127.0.0.1", True), ("10.1.2.3", True), ("8.8.8.8", False)]
)
async def test_a_name_must_lead_to_a_private_address(
    publisher: Backend, monkeypatch: pytest.MonkeyPatch, address: str, *, private: bool
) -> None:
    """A name for plain http is looked up before each request, and one public address among others refuses it."""
    resolved = asyncio.get_running_loop().getaddrinfo

    async def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in ("keys.internal", b"keys.internal"):
            return await resolved(host, *arguments, **options)
        here = await resolved("127.0.0.1", *arguments, **options)
        family, kind, protocol, name, _ = here[0]
        return [*here, (family, kind, protocol, name, (address, 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    url = publisher.url.replace("127.0.0.1", "keys.internal")
    client = JwksClient(url, read=read_published, private_http=True)
    if not private:
        assert "keys.internal is not in a private network: use https" in await unavailable(client)
        assert publisher.calls == []
    else:
        assert await client.key(ONE.kid) == ONE
    await client.aclose()


async def test_a_name_that_nobody_knows() -> None:
    """It is said in one sentence."""
    client = JwksClient("http://nobody.invalid/jwks", read=read_published, private_http=True)
    assert "can't be resolved" in await unavailable(client)
    await client.aclose()


def test_the_fixtures_keys_differ() -> None:
    """Two keys, two names."""
    assert key_id(ONE.key) == ONE.kid != TWO.kid
