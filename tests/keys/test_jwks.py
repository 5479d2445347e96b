"""JWK Sets: nothing private goes out, nothing foreign or broken comes in."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import MalformedError
from relay.core.jwk_set import MAX_KEYS, PrivateKeyError
from relay.core.jws import VerifyKey
from relay.keys.jwks import from_jwk, from_jwks, read_published, to_jwk, to_jwks, verify_key

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = verify_key(PRIVATE.public_key())
JWK = to_jwk(KEY)


def test_the_key_of_rfc_8037_is_read_and_written() -> None:
    """The key of RFC 8037 A.2 is read, and written with the same members."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"}
    key = from_jwk(jwk)
    assert key is not None
    assert to_jwk(key).items() >= jwk.items()


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5, unique=True))
def test_a_set_goes_out_and_comes_back(seeds: list[bytes]) -> None:
    """Through JSON, with the same keys under the same names, in the same order."""
    made = [verify_key(Ed25519PrivateKey.from_private_bytes(seed).public_key()) for seed in seeds]
    keys = {key.kid: key for key in made}
    found = from_jwks(json.loads(json.dumps(to_jwks(keys))))
    assert list(found) == list(keys)
    assert all(found[kid].key == key.key for kid, key in keys.items())


def test_no_private_member_ever() -> None:
    """A JWK has the public members and no others, and a private key is not turned into one at all."""
    assert set(JWK) == {"kty", "crv", "x", "kid", "alg", "use"}
    for secret in (PRIVATE, b"0" * 32, "0" * 32, None):
        with pytest.raises(TypeError, match="only Ed25519 public keys are published"):
            to_jwks({"k": VerifyKey(kid="k", algorithm="EdDSA", key=secret)})


@pytest.mark.parametrize(
    "other",
    [
        *[{"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}, {"crv": "Ed448"}, {"crv": "X25519"}, {"kty": None}],
        *[{"alg": "ES256"}, {"alg": "none"}, {"use": "enc"}, {"use": 7}],
    ],
    ids=str,
)
def test_keys_for_something_else_are_passed_over(other: dict[str, Any]) -> None:
    """An issuer may publish keys of other kinds in the same set (RFC 7517 §5)."""
    assert list(from_jwks({"keys": [JWK | other | {"kid": "other"}, JWK]})) == [KEY.kid]


def test_members_that_nobody_knows_are_ignored() -> None:
    """RFC 7517 §4 asks for it; alg and use may be left out."""
    few = {name: JWK[name] for name in ("kty", "crv", "x", "kid")}
    assert list(from_jwks({"keys": [few | {"iat": 1, "x5t": "y"}], "more": 1})) == [KEY.kid]


def test_an_empty_set_has_no_keys() -> None:
    """It is one."""
    assert from_jwks({"keys": []}) == {}


@pytest.mark.parametrize(
    "change",
    [
        *[{"kid": ""}, {"kid": None}, {"kid": "x" * 1025}, {"kid": ["a"]}, {"kid": True}],
        *[
            {"x": ""},
            {"x": None},
            {"x": 1},
            {"x": "é" * 43},
            {"x": "A" * 42},
            {"x": "A" * 44},
            {"x": JWK["x"] + "="},
        ],
        *[
            {"x": JWK["x"][:-1] + "9"},
            {"x": "+" + JWK["x"][1:]},
            {"x": " " + JWK["x"]},
            {"x": "A" * 1_000_000},
        ],
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_broken_key_is_left_out(change: dict[str, Any]) -> None:
    """A broken key is left out and named. The others count. As a file it is refused."""
    found = read_published({"keys": [JWK | change, JWK]})
    assert [key.kid for key in found.keys] == [KEY.kid]
    assert found.skipped[0].startswith("key 1")
    with pytest.raises(MalformedError):
        from_jwk(JWK | change)


@pytest.mark.parametrize(
    "secret", [{"d": "AAAA"}, {"k": "AAAA"}, {"priv": "AAAA"}, {"kty": "RSA", "p": "AAAA"}]
)
def test_a_private_key_refuses_the_whole_set(secret: dict[str, str]) -> None:
    """A private member refuses the set, whatever else is in it."""
    with pytest.raises(PrivateKeyError, match="replace that key"):
        from_jwks({"keys": [JWK, secret]})


def test_members_that_are_null_count_as_absent() -> None:
    """Serializers write null for a member without a value."""
    assert list(from_jwks({"keys": [JWK | {"use": None, "alg": None, "d": None}]})) == [KEY.kid]


@pytest.mark.parametrize(
    "document",
    [
        None,
        1,
        "",
        [],
        [JWK],
        {},
        {"keys": None},
        {"keys": JWK},
    ],
    ids=lambda document: str(document)[:30],
)
def test_what_is_no_set(document: object) -> None:
    """A single key or a list of them is not a set."""
    with pytest.raises(MalformedError):
        from_jwks(document)


def test_the_same_kid_twice() -> None:
    """Which one would it be?"""
    other = to_jwk(verify_key(Ed25519PrivateKey.generate().public_key())) | {"kid": KEY.kid}
    with pytest.raises(MalformedError, match="same kid"):
        from_jwks({"keys": [JWK, other]})


def test_a_set_of_more_than_500_keys_is_refused() -> None:
    """500 are read, 501 are not."""
    keys = [JWK | {"kid": str(number)} for number in range(MAX_KEYS + 1)]
    assert len(from_jwks({"keys": keys[:-1]})) == MAX_KEYS
    with pytest.raises(MalformedError, match="more than 500"):
        from_jwks({"keys": keys})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*JWK, "keys", "d"]), inner),
    max_leaves=6,
)


@given(
    json_values
    | st.builds(
        lambda change: {"keys": [JWK | change]}, st.dictionaries(st.sampled_from(list(JWK)), json_values)
    )
)
def test_any_json_is_a_set_of_keys_or_malformed(document: object) -> None:
    """Keys that verify, or a MalformedError with a sentence."""
    try:
        found = from_jwks(document)
    except MalformedError:
        return
    assert all(isinstance(key.key, Ed25519PublicKey) for key in found.values())
