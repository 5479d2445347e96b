"""Sessions signed with keys that the backend publishes: which keys are taken, and rotation.

The sets come over a real socket. The tokens are made by PyJWT and by joserfc.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jws import JWSRegistry
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from relay.core.errors import ConfigurationError, MalformedError, Reason, UnavailableError
from relay.core.jwk_set import MAX_KEYS, PrivateKeyError
from relay.keys.jwks_client import COOL_DOWN_S, JwksClient
from relay.sessions.base import EndedRefusal, Session
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


async def test_tokens_that_name_no_published_key(
    publisher: Backend, verifier: SignedVerifier, clock: Clock
) -> None:
    """Another name, no name, no text for a name, a right name over another key's signature. None of them loops."""
    for text in (
        signed(RSA, kid="two"),
        signed(OTHER_RSA, kid=None),
        forge({"alg": "RS256", "kid": "x" * 1025}, PAYLOAD, b"x"),
        forge({"alg": "RS256", "kid": ["one"]}, PAYLOAD, b"x"),
        forge({"alg": "RS256", "kid": 7}, PAYLOAD, b"x"),
        signed(OTHER_RSA),
    ):
        clock.now += COOL_DOWN_S
        assert await reason(text, verifier) is Reason.SESSION_INVALID
    assert len(publisher.calls) <= 4


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


# --- tokens and keys without a name


def by_joserfc(private: Any, *, algorithm: str = "RS256", **header: Any) -> str:
    """Return a session that joserfc signs."""
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = joserfc.jwk.import_key(pem, "RSA" if private in (RSA, OTHER_RSA) else "OKP")
    registry = JWSRegistry(algorithms=[algorithm])
    return joserfc.jwt.encode({"alg": algorithm} | header, PAYLOAD, key, registry=registry)


async def verdict(publisher: Backend, keys: list[Any], text: str, *, algorithm: str = "RS256") -> str:
    """Fetch this set and check a token with it: its user, or the reason of its refusal, or "unavailable"."""
    publisher.answers({"keys": keys})
    source = JwksClient(publisher.url, read=partial(read_keys, algorithm=algorithm))
    verifier = SignedVerifier(replace(OPTIONS, algorithm=algorithm, key=source))
    try:
        answer = await verifier.verify(text, now=NOW)
    except UnavailableError:
        return "unavailable"
    finally:
        await verifier.aclose()
    return answer.subject if isinstance(answer, Session) else answer.reason.value


async def test_the_one_suitable_key(publisher: Backend) -> None:
    """If the token or the keys have no kid, the one key that fits is taken. Of several, none is."""
    named, other, unnamed = jwk(RSA, kid="one"), jwk(OTHER_RSA, kid="two"), jwk(RSA)
    encryption = jwk(OTHER_RSA, use="enc", alg="RSA-OAEP")
    no_kid, with_kid = (signed(RSA, kid=None), by_joserfc(RSA)), (signed(RSA), by_joserfc(RSA, kid="one"))
    for text in no_kid:
        assert await verdict(publisher, [named], text) == "user-7"
        assert await verdict(publisher, [unnamed, encryption], text) == "user-7"
        assert await verdict(publisher, [named, unnamed], text) == "user-7"  # one key, listed twice
        assert await verdict(publisher, [named, other], text) == "session_invalid"
        assert await verdict(publisher, [unnamed, jwk(OTHER_RSA)], text) == "session_invalid"
        assert await verdict(publisher, [other], text) == "session_invalid"
    for text in with_kid:
        assert await verdict(publisher, [unnamed], text) == "user-7"
        assert await verdict(publisher, [unnamed, other], text) == "user-7"
        assert await verdict(publisher, [unnamed, jwk(OTHER_RSA)], text) == "session_invalid"
        assert await verdict(publisher, [jwk(OTHER_RSA)], text) == "session_invalid"
        assert await verdict(publisher, [named, jwk(OTHER_RSA, kid="one")], text) == "session_invalid"
        assert await verdict(publisher, [other], text) == "session_invalid"


async def test_a_key_that_only_might_be_meant_ends_no_session(publisher: Backend, clock: Clock) -> None:
    """A wrong signature under a key that the token does not name may be that of a new key: a look, and no verdict."""
    publisher.answers({"keys": [jwk(RSA)]})
    source = JwksClient(publisher.url, read=partial(read_keys, algorithm="RS256"), settle_s=10, clock=clock)
    verifier = SignedVerifier(replace(OPTIONS, algorithm="RS256", key=source))
    await session(signed(RSA, kid=None), verifier)
    with pytest.raises(UnavailableError, match="may be a new key"):
        await verifier.verify(signed(OTHER_RSA, kid=None), now=NOW)
    publisher.answers({"keys": [jwk(OTHER_RSA)]})
    clock.now += COOL_DOWN_S
    assert (await session(signed(OTHER_RSA, kid=None), verifier)).subject == "user-7"
    await verifier.aclose()


async def test_a_new_key_under_the_old_name(publisher: Backend, clock: Clock) -> None:
    """A wrong signature under a named key costs a look within the budget, because some servers reuse a kid."""
    publisher.answers({"keys": [jwk(RSA, kid="one"), jwk(RSA, kid="two")]})
    source = JwksClient(publisher.url, read=partial(read_keys, algorithm="RS256"), clock=clock)
    verifier = SignedVerifier(replace(OPTIONS, algorithm="RS256", key=source))
    await session(signed(RSA), verifier)
    publisher.answers({"keys": [jwk(OTHER_RSA, kid="one"), jwk(RSA, kid="two")]})
    assert (await session(signed(OTHER_RSA), verifier)).subject == "user-7"
    assert len(publisher.calls) == 2
    for _ in range(3):  # a forged one ends its session, with or without a look
        refused = await verifier.verify(signed(OTHER_RSA, kid="two"), now=NOW, caller="192.0.2.1")
        assert isinstance(refused, EndedRefusal)
    assert len(publisher.calls) == 3
    await verifier.aclose()


@pytest.mark.parametrize("setting", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("in_key", ["EdDSA", "Ed25519", None])
async def test_ed25519_has_two_names(publisher: Backend, setting: str, in_key: str | None) -> None:
    """EdDSA and Ed25519 (RFC 9864) mean the same in the token, the published key and the settings."""
    keys = [jwk(ED25519, kid="one", alg=in_key)]
    by_pyjwt = jwt.encode(PAYLOAD, ED25519, algorithm="EdDSA", headers={"kid": "one"})
    for text in (
        by_pyjwt,
        forge({"alg": "Ed25519", "kid": "one"}, PAYLOAD, ED25519),
        by_joserfc(ED25519, algorithm="Ed25519", kid="one"),
    ):
        assert await verdict(publisher, keys, text, algorithm=setting) == "user-7"
    assert (
        await verdict(publisher, keys, forge({"alg": "Ed448"}, PAYLOAD, ED25519), algorithm=setting)
        == "session_invalid"
    )


# --- sets

ODD_RSA = rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key()
LONG_RSA = rsa.RSAPublicNumbers(65537, (1 << 8199) + 1).public_key()
CERTIFICATE = {"kty": "RSA", "use": "sig", "kid": "chain", "x5c": ["MIIB"]}
ODD: dict[str, tuple[Any, str]] = {
    "a chain of certificates alone": (CERTIFICATE, "it has no n and no e"),
    "X25519": ({"kty": "OKP", "crv": "X25519", "x": "A" * 43, "kid": "a"}, "its kty is not RSA"),
    "Ed448": ({"kty": "OKP", "crv": "Ed448", "x": "A" * 76}, "its kty is not RSA"),
    "brainpool": ({"kty": "EC", "crv": "BP-256", "x": "AA", "y": "AA", "kid": "a"}, "its kty is not RSA"),
    "secp256k1": ({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, "its kty is not RSA"),
    "P-256": (jwk(P256, kid="a"), "its kty is not RSA"),
    "ML-DSA": ({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "a"}, "its kty is not RSA"),
    "no kty": ({"kid": "a"}, "its kty is not RSA"),
    "kty null": (jwk(OTHER_RSA, kid="a") | {"kty": None}, "its kty is not RSA"),
    "kty number": (jwk(OTHER_RSA, kid="a") | {"kty": 7}, "its kty is not RSA"),
    "kty in lower case": (jwk(OTHER_RSA, kid="a") | {"kty": "rsa"}, "its kty is not RSA"),
    "for encryption": (jwk(OTHER_RSA, kid="a", use="enc"), "its use is not sig"),
    "use number": (jwk(OTHER_RSA, kid="a", use=7), "its use is not sig"),
    "RSA-OAEP": (jwk(OTHER_RSA, kid="a", alg="RSA-OAEP"), "its alg is not RS256"),
    "another algorithm": (jwk(OTHER_RSA, kid="a", alg="RS512"), "its alg is not RS256"),
    "alg list": (jwk(OTHER_RSA, kid="a", alg=["RS256"]), "its alg is not RS256"),
    "key_ops sign": (jwk(OTHER_RSA, kid="a", key_ops=["sign"]), "its key_ops are not a list with verify"),
    "key_ops empty": (jwk(OTHER_RSA, kid="a", key_ops=[]), "its key_ops are not a list with verify"),
    "key_ops text": (jwk(OTHER_RSA, kid="a", key_ops="verify"), "its key_ops are not a list with verify"),
    "kid list": (jwk(OTHER_RSA, kid=["a"]), "its kid is not a text"),
    "kid true": (jwk(OTHER_RSA, kid=True), "its kid is not a text"),
    "kid too long": (jwk(OTHER_RSA, kid="x" * 1025), "its kid is not a text of at most 1024"),
    "the same key again": (jwk(RSA, kid="good"), "the same key was listed before"),
    "n missing": (jwk(OTHER_RSA, kid="a", n=None), "it has no n"),
    "n number": (jwk(OTHER_RSA, kid="a", n=7), "its key can't be read"),
    "n empty": (jwk(OTHER_RSA, kid="a", n=""), "its key can't be read"),
    "n is no base64": (jwk(OTHER_RSA, kid="a", n="!!"), "its key can't be read"),
    "n is too small": (jwk(OTHER_RSA, kid="a", n="AQAB"), ""),
    "e missing": (jwk(OTHER_RSA, kid="a", e=None), "it has no e"),
    "e even": (jwk(OTHER_RSA, kid="a", e="Ag"), "its key can't be read"),
    "1024 bits": (RSAAlgorithm.to_jwk(ODD_RSA, as_dict=True) | {"kid": "a"}, "an RSA key of 1024 bits"),
    "8200 bits": (RSAAlgorithm.to_jwk(LONG_RSA, as_dict=True) | {"kid": "a"}, "an RSA key of 8200 bits"),
    "null": (None, "it is not a JSON object"),
    "a text": ("-----BEGIN CERTIFICATE-----", "it is not a JSON object"),
    "a list": ([], "it is not a JSON object"),
    "an empty object": ({}, "its kty is not RSA"),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_key_is_left_out(
    publisher: Backend, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it and after it, the good key counts (RFC 7517 §5). The log says once what was left out, and why."""
    odd, why = ODD[name]
    good = jwk(RSA, kid="good")
    for keys in ([odd, good], [good, odd]):
        for text in (signed(RSA, kid="good"), by_joserfc(RSA, kid="good")):
            assert await verdict(publisher, keys, text) == "user-7"
    lines = [line for line in capsys.readouterr().out.split("\n") if "keys of the JWKS are not used" in line]
    assert len(lines) == 4  # one for each client
    assert all(why in line for line in lines)
    if name != "the same key again":
        assert await verdict(publisher, [odd], signed(RSA, kid="good")) == "unavailable"


GOOD: dict[str, dict[str, Any]] = {
    "use null": {"use": None},
    "alg null": {"alg": None},
    "key_ops null": {"key_ops": None},
    "x5c null": {"x5c": None},
    "d null": {"d": None},
    "key_ops with more": {"key_ops": ["sign", "verify"]},
    "use and alg": {"use": "sig", "alg": "RS256"},
    "unknown members": {
        "x5t": "AA",
        "x5c": ["AA"],
        "ext": True,
        "iat": 1,
        "issuer": "https://id.example.com",
    },
    "kid of 1024 characters": {"kid": "k" * 1024},
    "n in base64": {"n": jwk(RSA)["n"].replace("-", "+").replace("_", "/") + "=="},
}


@pytest.mark.parametrize("name", GOOD)
async def test_the_good_key_in_other_spellings(publisher: Backend, name: str) -> None:
    """Members that are null count as absent, and unknown ones don't count."""
    key: dict[str, Any] = jwk(RSA) | {"kid": "good"} | GOOD[name]
    for text in (signed(RSA, kid=key["kid"]), by_joserfc(RSA, kid=key["kid"])):
        assert await verdict(publisher, [key, jwk(OTHER_RSA, kid="other")], text) == "user-7"


async def test_a_kid_may_be_a_number_or_null(publisher: Backend) -> None:
    """A number counts as its digits, in the set and in the token. null is no kid."""
    for keys in ([jwk(RSA, kid=7), jwk(OTHER_RSA, kid=8)], [jwk(RSA, kid="7"), jwk(OTHER_RSA, kid="8")]):
        assert await verdict(publisher, keys, signed(RSA, kid="7")) == "user-7"
    only = [jwk(RSA) | {"kid": None}]
    assert await verdict(publisher, only, signed(RSA, kid=None)) == "user-7"
    assert await verdict(publisher, only, signed(RSA, kid="one")) == "user-7"


@pytest.mark.parametrize(
    "private",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "other"},
        json.loads(RSAAlgorithm.to_jwk(OTHER_RSA)) | {"kid": "other"},
        {"kty": "RSA", "p": "AA"},
        json.loads(ECAlgorithm.to_jwk(P256)) | {"use": "enc"},
        {"kty": "AKP", "priv": "AA"},
    ],
    ids=["a secret", "RSA", "a prime of RSA", "EC, for encryption", "ML-DSA"],
)
async def test_a_private_key_in_the_set(
    publisher: Backend, private: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole set is refused, and the log says it as an error: somebody has published the key."""
    assert await verdict(publisher, [jwk(RSA, kid="one"), private], signed(RSA)) == "unavailable"
    [line] = [line for line in capsys.readouterr().out.split("\n") if "private or secret key" in line]
    assert "error" in line
    assert "replace that key" in line


async def test_500_keys_of_a_megabyte(publisher: Backend) -> None:
    """A set of a large provider is read, whichever key is the token's."""
    chain = "A" * 1500
    keys: list[Any] = [jwk(OTHER_RSA, kid=str(number), x5c=[chain]) for number in range(MAX_KEYS - 1)]
    assert 900_000 < len(json.dumps({"keys": keys})) < 1 << 20
    assert await verdict(publisher, [*keys, jwk(RSA, kid="one")], signed(RSA)) == "user-7"
    assert await verdict(publisher, [*keys, {}, jwk(RSA, kid="one")], signed(RSA)) == "unavailable"


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_every_kind_of_key(algorithm: str) -> None:
    """Each public-key algorithm finds its own in a set of all kinds."""
    kinds = {"RSA": RSA, "P-256": P256, "P-384": P384, "P-521": PRIVATE_KEYS["ES512"], "Ed25519": ED25519}
    document = {"keys": [jwk(private, kid=name) for name, private in kinds.items()]}
    [key] = read_keys(document, algorithm).keys
    assert (kinds[key.kid], key.algorithm) == (PRIVATE_KEYS[algorithm], algorithm)


@pytest.mark.parametrize(
    "document",
    [
        *[{}, {"keys": None}, {"keys": {}}, {"keys": [{}] * 501}],
        {"issuer": "https://id.example.com", "jwks_uri": "https://id.example.com/keys"},
        jwk(RSA, kid="one"),
        {"5f2": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"},
    ],
    ids=range(7),
)
def test_documents_that_are_no_sets(document: dict[str, Any]) -> None:
    """The sentence says what it is instead, if that is known."""
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
    found = read_keys({"keys": [broken]}, algorithm)
    assert (found.keys, len(found.skipped)) == ((), 1)


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
        st.sampled_from(["kty", "crv", "n", "e", "x", "y", "kid", "use", "alg", "key_ops", "d"]), wild
    ),
    st.sampled_from([RSA, P256, ED25519]),
)
def test_any_published_key_is_read_or_left_out(algorithm: str, members: dict[str, Any], private: Any) -> None:
    """Whatever somebody publishes, it is a key, or left out, or a private key."""
    try:
        found = read_keys({"keys": [jwk(private) | members]}, algorithm)
    except PrivateKeyError:
        return
    assert len(found.keys) + len(found.skipped) == 1
    assert all(key.algorithm == algorithm for key in found.keys)


def test_secrets_are_not_published() -> None:
    """A key set with an HMAC algorithm is refused: each reader of the keys could sign."""
    source = JwksClient("https://id.example.com/jwks", read=partial(read_keys, algorithm="HS256"))
    with pytest.raises(ConfigurationError):
        SignedVerifier(replace(OPTIONS, algorithm="HS256", key=source))
