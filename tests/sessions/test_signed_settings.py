"""Sessions that are signed JWTs: their form, and settings that make no sense."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import ConfigurationError, Reason
from relay.sessions.signed import SignedOptions, SignedVerifier
from tests.support.jws_forgery import b64, forge
from tests.support.signed_sessions import (
    ED25519,
    OPTIONS,
    P256,
    P384,
    P521,
    PAYLOAD,
    PRIVATE_KEYS,
    REF_KEY,
    RSA,
    SECRET,
    public_pem,
    reason,
    session,
    token,
)

# --- form


@pytest.mark.parametrize(
    "changes",
    [
        *[{"sub": ""}, {"sub": 7.5}, {"sub": None}, {"sub": ["user-7"]}, {"sub": True}, {"sub": "x" * 257}],
        *[
            {"roles": 1},
            {"roles": {"trader": True}},
            {"roles": [1]},
            {"roles": [""]},
            {"roles": ""},
            {"roles": [["a"]]},
        ],
        *[{"sid": ""}, {"sid": 1.5}, {"sid": True}, {"sid": {}}, {"sid": ["session-1"]}],
    ],
    ids=str,
)
async def test_claims_of_another_form(changes: dict[str, Any]) -> None:
    """A claim that is there and is not what it should be refuses the token, and is not taken for absent."""
    assert await reason(token(changes)) is Reason.SESSION_INVALID


async def test_a_token_without_a_subject_is_refused() -> None:
    """A session is somebody's."""
    assert await reason(token(without="sub")) is Reason.SESSION_INVALID


async def test_a_claim_that_stands_twice_is_refused() -> None:
    """Parsers differ in which one wins: one of them sees an admin."""
    twice = json.dumps(PAYLOAD)[:-1] + ', "sub": "admin"}'
    assert await reason(forge({"alg": "HS256"}, twice.encode(), SECRET)) is Reason.SESSION_INVALID


@pytest.mark.parametrize("change", ["", "{}=", "{} ", " {}", '"{}"', "Bearer {}", "{}.", "{}\n", "{}é"])
async def test_a_token_with_anything_around_it_is_malformed(change: str) -> None:
    """A good token with anything around it, or nothing at all."""
    assert await reason(change.format(token())) is Reason.SESSION_INVALID


async def test_a_token_above_19_680_bytes_is_refused() -> None:
    """Five chunks of a cookie are the most, and 5 MB are refused as fast."""
    room = {"pad": "x" * 14_000}
    assert 18_000 < len(token(room)) < 19_680
    assert (await session(token(room))).subject == "user-7"
    assert await reason(token({"pad": "x" * 15_000})) is Reason.SESSION_INVALID
    assert await reason("a" * 5_000_000) is Reason.SESSION_INVALID


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*PAYLOAD, "nbf", "aud", "iss"]), wild, max_size=4),
    st.dictionaries(st.text(max_size=4), wild, max_size=2),
)
async def test_any_signed_claims_are_a_session_or_refused(
    changes: dict[str, Any], header: dict[str, Any]
) -> None:
    """Validly signed nonsense is a session or a refusal, and nothing raises."""
    assert await reason(token(changes, **header)) in (None, Reason.SESSION_INVALID, Reason.SESSION_EXPIRED)


@given(
    st.text(st.characters(), max_size=300) | st.binary(max_size=90).map(lambda data: f"{b64(data)}.e30.AAAA")
)
@example("\ud800.\ud800.\ud800")
async def test_any_text_is_refused_without_an_error(text: str) -> None:
    """A cookie has whatever somebody put into it."""
    assert await reason(text) is Reason.SESSION_INVALID


# --- settings


def mistake(options: SignedOptions) -> str:
    with pytest.raises(ConfigurationError) as caught:
        SignedVerifier(options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert SECRET.decode() not in text
    return text


@pytest.mark.parametrize(
    "options",
    [{}, {"typ": "JWT"}, {"typ": "application/jwt"}, {"audience": ""}, {"issuer": "https://backend"}],
)
def test_a_discriminator_is_needed(options: dict[str, Any]) -> None:
    """Nothing here tells a session from a refresh token; the sentence says why that matters and what to set."""
    text = mistake(replace(OPTIONS, require={}, **options))
    assert "refresh token would pass" in text
    assert "require = " in text
    assert "audience" in text
    assert "typ" in text


@pytest.mark.parametrize(
    "options", [{"typ": "at+jwt"}, {"audience": "relay"}, {"require": {"token_use": "access"}}]
)
def test_each_discriminator_is_enough(options: dict[str, Any]) -> None:
    """One of the three will do."""
    SignedVerifier(replace(OPTIONS, **({"require": {}} | options)))


@pytest.mark.parametrize("typ", ["scoped+jwt", "application/Scoped+JWT"])
def test_scoped_tokens_cannot_be_configured_as_sessions(typ: str) -> None:
    """That setting could only ever refuse."""
    assert "never a session" in mistake(replace(OPTIONS, typ=typ))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "hs256", "HS1", "ES256K", "RS256 ", "EdDSA,HS256", "Ed448"]
)
def test_algorithms_that_do_not_exist_here(algorithm: str) -> None:
    """The sentence lists those that do."""
    assert "one of HS256, HS384" in mistake(replace(OPTIONS, algorithm=algorithm))


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_shorter_than_its_hash_is_refused(algorithm: str, least: int) -> None:
    """As long as the hash, which is what RFC 7518 §3.2 asks for."""
    SignedVerifier(replace(OPTIONS, algorithm=algorithm, key=b"s" * least))
    assert f"needs at least {least} " in mistake(
        replace(OPTIONS, algorithm=algorithm, key=b"s" * (least - 1))
    )
    assert "has 0 bytes" in mistake(replace(OPTIONS, algorithm=algorithm, key=b""))


def certificate_like() -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(b"x" * 90) + b"\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda: public_pem(RSA),
        lambda: public_pem(ED25519),
        lambda: public_pem(P256).strip() + b" ",
        lambda: RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        lambda: ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        lambda: json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}).encode(),
        certificate_like,
    ],
    ids=["rsa pem", "ed25519 pem", "ec pem", "rsa der", "ed25519 ssh", "jwk", "certificate"],
)
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_as_a_secret(make: Callable[[], bytes], algorithm: str) -> None:
    """Everybody who knows the public key could sign: refused at start."""
    assert "public key could sign with it" in mistake(replace(OPTIONS, algorithm=algorithm, key=make()))


MISFITS = {
    "RS256": [P256, ED25519],
    "PS512": [P256, ED25519],
    "ES256": [P384, P521, RSA, ED25519],
    "ES384": [P256, RSA],
    "EdDSA": [RSA, P256, ed448.Ed448PrivateKey.generate()],
}


@pytest.mark.parametrize(("algorithm", "keys"), MISFITS.items())
def test_a_public_key_of_another_kind(algorithm: str, keys: list[Any]) -> None:
    """Each algorithm takes its own kind of key, and its own curve."""
    for key in keys:
        assert "that is not for" in mistake(replace(OPTIONS, algorithm=algorithm, key=public_pem(key)))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize(
    "key", [b"", SECRET, b"\xff" * 40, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_what_is_no_public_key(algorithm: str, key: bytes) -> None:
    """The sentence says in which form one is needed."""
    assert "BEGIN PUBLIC KEY" in mistake(replace(OPTIONS, algorithm=algorithm, key=key))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_private_key_is_not_wanted(algorithm: str) -> None:
    """Who only checks should not be able to sign."""
    pem = PRIVATE_KEYS[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    text = mistake(replace(OPTIONS, algorithm=algorithm, key=pem))
    assert "only the public one" in text
    assert "-----" not in text


def test_a_short_rsa_key() -> None:
    """2048 bits are the least (RFC 7518 §3.3)."""
    weak = rsa.generate_private_key(65537, 1024)
    assert "1024 bits" in mistake(replace(OPTIONS, algorithm="RS256", key=public_pem(weak)))


def test_a_missing_ref_key() -> None:
    """Without it the references could be computed by everybody."""
    assert "ref_key" in mistake(replace(OPTIONS, ref_key=b""))


def test_secrets_are_not_in_a_repr() -> None:
    """Options that are logged show neither the secret nor the key of the references."""
    assert SECRET.decode() not in repr(OPTIONS)
    assert REF_KEY.decode() not in repr(OPTIONS)
