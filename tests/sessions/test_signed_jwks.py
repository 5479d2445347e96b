"""Sessions signed with keys that the backend publishes: which keys are taken, and rotation."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from relay.core.errors import ConfigurationError, MalformedError, Reason, UnavailableError
from relay.keys.jwks_client import JwksClient
from relay.sessions.signed import SignedVerifier
from relay.sessions.signed_keys import read_keys
from tests.support.backends import Backend, Clock, running_backend
from tests.support.jws_forgery import forge
from tests.support.signed_sessions import (
    ED25519,
    NOW,
    OPTIONS,
    P256,
    P384,
    PAYLOAD,
    PRIVATE_KEYS,
    RSA,
    reason,
    session,
)

OTHER_RSA = rsa.generate_private_key(65537, 2048)


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    """Return a key's public JWK with these members; None takes one out."""
    readers: tuple[Any, ...] = (RSAAlgorithm, ECAlgorithm, OKPAlgorithm)
    kind = 0 if isinstance(private, rsa.RSAPrivateKey) else 2 if private is ED25519 else 1
    document = readers[kind].to_jwk(private.public_key(), as_dict=True) | members
    return {name: value for name, value in document.items() if value is not None and name != "key_ops"} | (
        {"key_ops": members["key_ops"]} if "key_ops" in members else {}
    )


@pytest.fixture
async def publisher() -> AsyncIterator[Backend]:
    """A backend that publishes one RSA key."""
    async with running_backend("/jwks.json") as running:
        running.answers({"keys": [jwk(RSA, kid="one", use="sig", alg="RS256")]})
        yield running


@pytest.fixture
def clock() -> Clock:
    """The key client's clock."""
    return Clock()


@pytest.fixture
async def verifier(publisher: Backend, clock: Clock) -> AsyncIterator[SignedVerifier]:
    """A verifier with that backend's keys."""
    source = JwksClient(publisher.url, read=partial(read_keys, algorithm="RS256"), clock=clock)
    verifier = SignedVerifier(replace(OPTIONS, algorithm="RS256", key=source))
    yield verifier
    await verifier.aclose()


def signed(private: Any, *, kid: str | None = "one", algorithm: str = "RS256") -> str:
    """Return a session signed with this key."""
    return jwt.encode(PAYLOAD, private, algorithm=algorithm, headers={"kid": kid} if kid is not None else {})


async def test_a_token_of_a_published_key_is_a_session(publisher: Backend, verifier: SignedVerifier) -> None:
    """A token with its kid is a session; the key is fetched once."""
    for _ in range(3):
        assert (await session(signed(RSA), verifier)).subject == "user-7"
    assert len(publisher.calls) == 1


async def test_tokens_that_name_no_published_key(publisher: Backend, verifier: SignedVerifier) -> None:
    """Another name, no name, no text for a name; and a right name over another key's signature."""
    for text in (
        signed(RSA, kid="two"),
        signed(RSA, kid=None),
        signed(RSA, kid="x" * 999),
        signed(OTHER_RSA),
    ):
        assert await reason(text, verifier) is Reason.SESSION_INVALID
    assert await reason(forge({"alg": "RS256", "kid": 7}, PAYLOAD, b"x"), verifier) is Reason.SESSION_INVALID
    assert len(publisher.calls) == 2


async def test_other_algorithms_fetch_nothing(publisher: Backend, verifier: SignedVerifier) -> None:
    """A header that could not pass anyway is no reason to ask anybody."""
    for alg in ("none", "HS256", "ES256", None, 7):
        assert (
            await reason(forge({"alg": alg, "kid": "x"}, PAYLOAD, b"x"), verifier) is Reason.SESSION_INVALID
        )
    assert publisher.calls == []


async def test_headers_that_name_addresses(publisher: Backend, verifier: SignedVerifier) -> None:
    """jku and x5u are ignored: keys come from the settings' address only."""
    headers = {"kid": "one", "jku": publisher.url + "?evil", "x5u": publisher.url + "?evil"}
    text = jwt.encode(PAYLOAD, OTHER_RSA, algorithm="RS256", headers=headers)
    assert await reason(text, verifier) is Reason.SESSION_INVALID
    assert len(publisher.calls) == 1


async def test_tokens_of_the_old_and_the_new_key_are_sessions(
    publisher: Backend, verifier: SignedVerifier, clock: Clock
) -> None:
    """The new key works from its first token on, the old one until it is withdrawn."""
    await session(signed(RSA), verifier)
    both = [jwk(RSA, kid="one"), jwk(OTHER_RSA, kid="two")]
    publisher.answers({"keys": both})
    assert (await session(signed(OTHER_RSA, kid="two"), verifier)).subject == "user-7"
    assert (await session(signed(RSA), verifier)).subject == "user-7"
    publisher.answers({"keys": both[1:]})
    clock.now += 3000
    assert await reason(signed(RSA), verifier) is Reason.SESSION_INVALID
    assert (await session(signed(OTHER_RSA, kid="two"), verifier)).subject == "user-7"


async def test_keys_that_cannot_be_fetched(publisher: Backend, verifier: SignedVerifier) -> None:
    """That is no verdict on the session: the caller fails closed and the cookie stays."""
    publisher.answers(status=500)
    with pytest.raises(UnavailableError):
        await verifier.verify(signed(RSA), now=NOW)


async def test_a_key_without_a_name(publisher: Backend, verifier: SignedVerifier) -> None:
    """Where the backend has one key and no kid, neither have its tokens."""
    publisher.answers({"keys": [jwk(RSA)]})
    assert (await session(signed(RSA, kid=None), verifier)).subject == "user-7"
    assert await reason(signed(RSA), verifier) is Reason.SESSION_INVALID


# --- sets


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_every_kind_of_key(algorithm: str) -> None:
    """Each public-key algorithm finds its own in a set of all kinds."""
    kinds = {"RSA": RSA, "P-256": P256, "P-384": P384, "P-521": PRIVATE_KEYS["ES512"], "Ed25519": ED25519}
    document = {"keys": [jwk(private, kid=name) for name, private in kinds.items()]}
    found = read_keys(document, algorithm)
    assert [kinds[kid] for kid in found] == [PRIVATE_KEYS[algorithm]]
    assert all((key.kid, key.algorithm) == (kid, algorithm) for kid, key in found.items())


@pytest.mark.parametrize(
    "members",
    [
        *[{"use": "enc"}, {"use": 7}, {"alg": "RS512"}, {"alg": "RSA-OAEP"}, {"kty": "EC"}, {"kty": None}],
        *[{"key_ops": ["sign"]}, {"key_ops": "verify"}, {"key_ops": []}],
    ],
    ids=str,
)
def test_keys_for_something_else_are_passed_over(members: dict[str, Any]) -> None:
    """They harm nobody (RFC 7517 §5)."""
    document = {"keys": [jwk(RSA, kid="other") | members, jwk(OTHER_RSA, kid="good")]}
    assert list(read_keys(document, "RS256")) == ["good"]


@pytest.mark.parametrize("bits", [1024, 8200])
def test_keys_of_a_wrong_length_are_passed_over(bits: int) -> None:
    """A short key is weak, and a long one makes each signature expensive."""
    key = RSAAlgorithm.to_jwk(rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1).public_key(), as_dict=True)
    document = {"keys": [key | {"kid": "odd"}, jwk(RSA, kid="good")]}
    assert list(read_keys(document, "RS256")) == ["good"]


@pytest.mark.parametrize(
    "document",
    [
        *[{}, {"keys": None}, {"keys": {}}, {"keys": [None]}, {"keys": [["a"]]}],
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [json.loads(RSAAlgorithm.to_jwk(RSA)) | {"kid": "a"}]},
        {"keys": [jwk(RSA, kid="a"), jwk(OTHER_RSA, kid="a")]},
        {"keys": [jwk(RSA), jwk(OTHER_RSA)]},
        {"keys": [jwk(RSA, kid=7)]},
        {"keys": [jwk(RSA, kid="x" * 129)]},
        *[{"keys": [jwk(RSA, kid="a", n=n)]} for n in (None, 7, "", "!!", "AQAB", ["x"])],
        *[{"keys": [jwk(RSA, kid="a", e=e)]} for e in (None, "", "AA", 3)],
        {"keys": [jwk(RSA, kid=str(index)) for index in range(65)]},
    ],
    ids=range(22),
)
def test_sets_that_are_refused_whole(document: dict[str, Any]) -> None:
    """No set, a private key in it, two keys of one name, a key of ours that is broken, too many."""
    with pytest.raises(MalformedError) as raised:
        read_keys(document, "RS256")
    assert raised.value.detail.endswith(".")


@pytest.mark.parametrize(
    ("algorithm", "broken"),
    [
        *[("ES256", jwk(P256, kid="a", **{name: value})) for name in "xy" for value in (None, "", "AA", 7)],
        *[("EdDSA", jwk(ED25519, kid="a", x=value)) for value in (None, "", "AA", "!" * 43, 7)],
    ],
)
def test_broken_keys_of_other_kinds(algorithm: str, broken: dict[str, Any]) -> None:
    """A point off the curve, or half a key."""
    with pytest.raises(MalformedError):
        read_keys({"keys": [broken]}, algorithm)


wild = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=50)
    | st.lists(st.text(max_size=5), max_size=2)
)


@given(
    st.sampled_from(["RS256", "ES256", "ES512", "EdDSA"]),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "n", "e", "x", "y", "kid", "use", "alg", "key_ops"]), wild
    ),
    st.sampled_from([RSA, P256, ED25519]),
)
def test_any_published_keys_are_read_or_malformed(
    algorithm: str, members: dict[str, Any], private: Any
) -> None:
    """Whatever somebody publishes, it is keys or it is malformed."""
    try:
        found = read_keys({"keys": [jwk(private) | members]}, algorithm)
    except MalformedError:
        return
    assert all(key.algorithm == algorithm for key in found.values())


def test_secrets_are_not_published() -> None:
    """A key set with an HMAC algorithm is refused: each reader of the keys could sign."""
    source = JwksClient("https://id.example.com/jwks", read=partial(read_keys, algorithm="HS256"))
    with pytest.raises(ConfigurationError):
        SignedVerifier(replace(OPTIONS, algorithm="HS256", key=source))
