"""Keys that the backend publishes: a stranger's made-up kids, an endpoint that lags, and a private key in the set.

The strangers have addresses of their own on this machine (127.0.0.0/8).
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from tests.support.backends import Backend, running_backend
from tests.support.http_client import http_client
from tests.support.relay_process import Relay, make_relay, with_session
from tests.support.signed_sessions import P256

SIGNED = 'algorithm = "ES256", require = { token_use = "access" }'


@pytest.fixture
async def publisher() -> AsyncIterator[Backend]:
    """A backend that publishes the key "one"."""
    async with running_backend("/jwks.json") as running:
        publish(running, "one")
        yield running


@pytest.fixture
async def relay(tmp_path: Path, publisher: Backend) -> AsyncIterator[Relay]:
    """A relay with that backend's keys."""
    relay = with_session(make_relay(tmp_path), f'signed = {{ {SIGNED}, jwks_url = "{publisher.url}" }}')
    relay.start()
    yield relay
    relay.stop()
    assert "Traceback" not in relay.log_path.read_text()


def publish(publisher: Backend, *kids: str, **private: Any) -> None:
    """Publish the key under these kids, with further members."""
    key = ECAlgorithm.to_jwk(P256.public_key(), as_dict=True)
    publisher.answers({"keys": [key | {"kid": kid} | private for kid in kids]})


def claims() -> dict[str, Any]:
    """Return the claims of a session."""
    now = int(time.time())
    session = {"sub": "user-1", "roles": ["trader"], "sid": "s-1", "token_use": "access"}
    return session | {"iat": now, "exp": now + 600}


def by_pyjwt(kid: str) -> str:
    """Return a good session of the key with this kid."""
    return jwt.encode(claims(), P256, algorithm="ES256", headers={"kid": kid})


def by_joserfc(kid: str) -> str:
    """Return the same, made by joserfc."""
    pem = P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return joserfc.jwt.encode({"alg": "ES256", "kid": kid}, claims(), joserfc.jwk.ECKey.import_key(pem))


async def ask(relay: Relay, session: str, *, address: str, bearer: bool = False) -> httpx.Response:
    """Ask for a token from this address, with the session in the cookie or in a header."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    cookie = {"Cookie": f"access-token={session}; refresh-token=r", "Origin": relay.url}
    headers = {"Authorization": f"Bearer {session}"} if bearer else cookie
    async with http_client(transport=transport) as client:
        return await client.post(f"{relay.url}/auth/ws-token", headers=headers)


def assert_kept(answer: httpx.Response) -> None:
    """Check that the answer asks to try again, and that no cookie is touched."""
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.json()["retryable"] is True
    assert int(answer.headers["Retry-After"]) >= 1
    assert "set-cookie" not in answer.headers


async def test_made_up_kids_starve_no_new_key(relay: Relay, publisher: Backend) -> None:
    """A stranger's kids cost the provider one request. The first sessions of a new key are accepted at once."""
    assert (await ask(relay, by_pyjwt("one"), address="127.0.0.1")).status_code == 200
    for number in range(20):
        assert_kept(await ask(relay, by_pyjwt(f"made-up-{number}"), address="127.0.0.2", bearer=True))
    assert len(publisher.calls) == 2
    publish(publisher, "one", "two", "three")
    assert_kept(await ask(relay, by_pyjwt("made-up"), address="127.0.0.2", bearer=True))
    assert (await ask(relay, by_pyjwt("two"), address="127.0.0.3")).status_code == 200
    assert (await ask(relay, by_joserfc("three"), address="127.0.0.2")).status_code == 200
    assert len(publisher.calls) == 3


async def test_a_new_key_that_is_not_published_yet(relay: Relay, publisher: Backend) -> None:
    """While the endpoint serves the old set, sessions of the new key wait, and keep their cookies."""
    assert (await ask(relay, by_pyjwt("one"), address="127.0.0.1")).status_code == 200
    for _ in range(3):
        assert_kept(await ask(relay, by_joserfc("two"), address="127.0.0.1"))
    denied = await relay.audited("token.denied", reason="backend_unavailable")
    assert "It may be a new key" in denied["relay"]["detail"]
    assert denied["relay"]["setting"] == "session.signed.jwks_url"
    publish(publisher, "one", "two")
    assert (await ask(relay, by_pyjwt("two"), address="127.0.0.4")).status_code == 200
    assert (await ask(relay, by_joserfc("two"), address="127.0.0.1")).status_code == 200


async def test_an_address_that_has_no_keys(relay: Relay, publisher: Backend) -> None:
    """A wrong path comes again each time: 502, which is not repeated. The cookies stay, and the log says what came."""
    publisher.answers(b"<html>", status=404)
    answer = await ask(relay, by_pyjwt("one"), address="127.0.0.1")
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (
        502,
        "bad_gateway",
        False,
    )
    assert "set-cookie" not in answer.headers
    denied = await relay.audited("token.denied", reason="backend_fault")
    assert denied["relay"]["setting"] == "session.signed.jwks_url"
    assert "The JWKS address answered 404, not 200." in relay.log_path.read_text()


async def test_a_published_private_key_is_refused_loudly(relay: Relay, publisher: Backend) -> None:
    """Everybody could sign with it, so no key of the set counts, cached ones included. The log has an error."""
    assert (await ask(relay, by_pyjwt("one"), address="127.0.0.1")).status_code == 200
    publish(publisher, "one", d="A" * 43)
    assert_kept(await ask(relay, by_pyjwt("made-up"), address="127.0.0.2"))
    assert_kept(await ask(relay, by_pyjwt("one"), address="127.0.0.1"))
    log = relay.log_path.read_text().split("\n")
    [line] = [line for line in log if "keys could not be fetched" in line]
    assert '"level":"error"' in line.replace(" ", "")
    assert "replace that key" in line
    assert "A" * 43 not in relay.log_path.read_text() + relay.audit_path.read_text()
