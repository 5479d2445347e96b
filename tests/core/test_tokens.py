"""Scoped tokens: minting, and what their header, key and signature may be."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from relay.core.errors import Reason, Refusal
from relay.core.jws import VerifyKey
from relay.core.scope import MAX_CHANNELS, Scope
from relay.core.tokens import (
    MAX_TOKEN_BYTES,
    examine,
    mint,
    verify,
)
from tests.support.jws_forgery import b64, forge
from tests.support.scoped_tokens import (
    CLAIMS,
    EXPECTED,
    HEADER,
    KEY,
    KEYS,
    NOW,
    PAYLOAD,
    PRIVATE,
    header_reason,
    reason,
)

# --- minting


def test_a_minted_token_is_accepted() -> None:
    """Claims and kid come back as they were given."""
    assert verify(mint(CLAIMS, KEY), KEYS, now=NOW, expected=EXPECTED) == (CLAIMS, "key-1")
    assert CLAIMS.channel_scope == Scope(("prices.BTC-USD", "prices.>"))


def test_the_hand_made_token_is_the_same() -> None:
    """The tests below change one thing of a token that is good, and this is it."""
    assert reason(forge(HEADER, PAYLOAD, PRIVATE)) is None
    token = examine(mint(replace(CLAIMS, session_expires_at=None), KEY), KEYS, now=NOW, expected=EXPECTED)
    assert (token.header, token.payload) == (HEADER, PAYLOAD)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
segment = st.text("abcXYZ019_=^/:~+@&!-", min_size=1, max_size=8)
channel_lists = st.lists(
    st.builds(
        lambda front, last: ".".join([*front, last]),
        st.lists(segment | st.just("*"), max_size=3),
        segment | st.just(">"),
    ),
    min_size=1,
    max_size=MAX_CHANNELS,
)


@given(
    names,
    names,
    channel_lists,
    st.one_of(st.just(""), names),
    st.integers(1, 30),
    st.integers(1, 2**52),
    st.one_of(st.none(), st.integers(1, 2**52)),
    st.floats(-2, 1.9),
)
def test_a_minted_token_is_accepted_within_its_life(
    subject: str,
    jti: str,
    channels: list[str],
    origin: str,
    ttl: int,
    now: int,
    ends: int | None,
    skew: float,
) -> None:
    """Whatever can be minted is accepted within its life, and says what it said."""
    claims = replace(
        CLAIMS,
        subject=subject,
        jti=jti,
        channels=tuple(channels),
        origin=origin,
        issued_at=now,
        expires_at=now + ttl,
        session_expires_at=ends,
    )
    expected = replace(EXPECTED, origin=origin)
    text = mint(claims, KEY)
    assert len(text) <= MAX_TOKEN_BYTES
    assert verify(text, KEYS, now=now + ttl / 2 + skew / 2, expected=expected) == (claims, "key-1")


@pytest.mark.parametrize(
    "changes",
    [
        *[{"expires_at": NOW + 31}, {"expires_at": NOW}, {"expires_at": NOW - 1}, {"issued_at": 0}],
        *[{"subject": ""}, {"jti": ""}, {"audience": ""}, {"issuer": ""}, {"session_ref": ""}, {"scope": ""}],
        *[{"channels": ()}, {"channels": ("a b",)}, {"channels": ("a",) * 33}, {"subject": "\ud800"}],
        *[{"subject": "x" * 4000}, {"session_expires_at": -1}],
    ],
    ids=str,
)
def test_what_would_be_refused_is_not_minted(changes: dict[str, Any]) -> None:
    """A bug of the issuer shows at the issuer, not as refusals at the gate."""
    with pytest.raises(ValueError, match=r"."):
        mint(replace(CLAIMS, **changes), KEY)


def test_the_private_key_is_not_in_a_repr() -> None:
    """A SigningKey that is logged shows its kid only."""
    assert repr(KEY) == "SigningKey(kid='key-1')"


def test_the_largest_token_fits() -> None:
    """32 patterns of 40 characters, which is what the limit of 4096 bytes was made for."""
    channels = tuple(f"{number:02}" + "x" * 38 for number in range(32))
    assert len(mint(replace(CLAIMS, channels=channels), KEY)) < 2600


# --- header, key, signature


@pytest.mark.parametrize(
    "public",
    [
        PRIVATE.public_key().public_bytes_raw(),
        PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).rstrip(b"\n"),
        PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        PRIVATE.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        b64(PRIVATE.public_key().public_bytes_raw()).encode(),
        b"",
    ],
    ids=["raw", "pem", "pem without its last newline", "der", "ssh", "base64", "empty"],
)
@pytest.mark.parametrize("alg", ["HS256", "hs256", "EdDSA"])
def test_a_public_key_is_never_an_hmac_secret(public: bytes, alg: str) -> None:
    """The public key, which everybody has, is no HMAC secret in any of its forms."""
    expected = Reason.TOKEN_SIGNATURE if alg == "EdDSA" else Reason.TOKEN_HEADER
    assert reason(forge(HEADER | {"alg": alg}, PAYLOAD, public)) is expected


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", None, 0, [], "eddsa", "EDDSA", "Ed25519", "ES256"]
)
def test_another_algorithm_than_eddsa_is_refused(alg: object) -> None:
    """Only EdDSA, spelt so; with a signature and without one."""
    assert header_reason({"alg": alg}) is Reason.TOKEN_HEADER
    unsigned = reason(forge(HEADER | {"alg": alg}, PAYLOAD, None))
    assert unsigned is Reason.TOKEN_MALFORMED  # an empty signature is not even a token


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "/etc/passwd", "k" * 2000, "", "KEY-1", "key-1 ", "key-1\x00"]
)
def test_an_unknown_kid_is_refused(kid: str) -> None:
    """The kid is a name to look up and nothing else: no path, no pattern, no near miss."""
    assert header_reason({"kid": kid}) is Reason.TOKEN_KEY_UNKNOWN


@pytest.mark.parametrize("kid", [1, 1.5, True, None, [], ["key-1"], {"key-1": 1}])
def test_kid_of_another_type(kid: object) -> None:
    """What is no text can't be looked up, and does not raise where dictionaries want hashable keys."""
    assert header_reason({"kid": kid}) is Reason.TOKEN_KEY_UNKNOWN


def test_kid_of_8_kilobytes() -> None:
    """It makes the token too large before anybody looks for a kid."""
    assert header_reason({"kid": "k" * 8192}) is Reason.TOKEN_TOO_LARGE


@pytest.mark.parametrize(
    "extra",
    [
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "file:///etc/passwd"},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(32))}},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": True},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"": ""},
    ],
    ids=lambda extra: next(iter(extra)) or "empty",
)
def test_a_token_that_brings_its_own_key_is_refused(extra: dict[str, Any]) -> None:
    """A token that brings its own key, or wants something understood, is refused although the signature is right."""
    assert header_reason(extra) is Reason.TOKEN_HEADER


@pytest.mark.parametrize("typ", ["JWT", "jwt", "scoped+JWT", "application/scoped+jwt", "", None, 1, "at+jwt"])
def test_a_token_of_another_type_is_refused(typ: object) -> None:
    """A token of another kind under the same key is no scoped token."""
    assert header_reason({"typ": typ}) is Reason.TOKEN_HEADER


@pytest.mark.parametrize(("name", "expected"), [("typ", "header"), ("alg", "header"), ("kid", "key_unknown")])
def test_each_of_the_three_header_members_is_required(name: str, expected: str) -> None:
    """None of the three may be left out."""
    header = {key: value for key, value in HEADER.items() if key != name}
    assert reason(forge(header, PAYLOAD, PRIVATE)) is Reason(f"token_{expected}")


def test_another_key_with_the_right_kid() -> None:
    """Naming a key is not having it."""
    assert reason(forge(HEADER, PAYLOAD, Ed25519PrivateKey.generate())) is Reason.TOKEN_SIGNATURE


def test_a_key_for_another_algorithm() -> None:
    """A key that is in the table by mistake, for another algorithm, checks no scoped token."""
    keys = {"key-1": VerifyKey(kid="key-1", algorithm="HS256", key=b"0" * 32)}
    result = verify(forge(HEADER, PAYLOAD, b"0" * 32), keys, now=NOW, expected=EXPECTED)
    assert isinstance(result, Refusal)
    assert result.reason is Reason.TOKEN_HEADER
