"""Scoped tokens: what is minted is accepted, and everything else has its reason."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import Reason, Refusal
from relay.core.jws import VerifyKey
from relay.core.scope import MAX_CHANNELS, Scope
from relay.core.tokens import (
    MAX_TOKEN_BYTES,
    Claims,
    Expected,
    SigningKey,
    examine,
    mint,
    verify,
)
from tests.keys.forging import b64, forge

NOW = 1_795_319_000
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = SigningKey(kid="key-1", key=PRIVATE)
KEYS = {"key-1": VerifyKey(kid="key-1", algorithm="EdDSA", key=PRIVATE.public_key())}
AUDIENCE = "wss://stream.example.com/ws/prices"
EXPECTED = Expected(issuer="https://app.example.com", audience=AUDIENCE, origin="https://app.example.com")
HEADER = {"typ": "scoped+jwt", "alg": "EdDSA", "kid": "key-1"}
CLAIMS = Claims(
    issuer="https://app.example.com",
    audience=AUDIENCE,
    subject="user-7",
    session_ref="0123456789abcdef0123456789abcdef",
    channels=("prices.BTC-USD", "prices.>"),
    origin="https://app.example.com",
    jti="AAAAAAAAAAAAAAAAAAAAAA",
    issued_at=NOW,
    expires_at=NOW + 30,
    session_expires_at=NOW + 3600,
)
PAYLOAD: dict[str, Any] = {
    "iss": "https://app.example.com",
    "aud": AUDIENCE,
    "sub": "user-7",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 30,
    "jti": "AAAAAAAAAAAAAAAAAAAAAA",
    "scope": "subscribe",
    "channels": ["prices.BTC-USD", "prices.>"],
    "sid": "0123456789abcdef0123456789abcdef",
    "origin": "https://app.example.com",
    "ver": 1,
}


def reason(text: str, *, now: float = NOW, expected: Expected = EXPECTED) -> Reason | None:
    """Why `verify` refuses; None if it accepts. `examine` must see the same reason first."""
    result = verify(text, KEYS, now=now, expected=expected)
    found = result.reason if isinstance(result, Refusal) else None
    examined = examine(text, KEYS, now=now, expected=expected).refusals
    assert (examined[0].reason if examined else None) is found
    return found


def claims_reason(
    changes: dict[str, Any] | None = None, *, without: str | None = None, **options: Any
) -> Reason | None:
    payload = {name: value for name, value in (PAYLOAD | (changes or {})).items() if name != without}
    return reason(forge(HEADER, payload, PRIVATE), **options)


def header_reason(changes: dict[str, Any]) -> Reason | None:
    return reason(forge(HEADER | changes, PAYLOAD, PRIVATE))


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
segment = st.text("abcXYZ019_=^/:~+-", min_size=1, max_size=8)
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
def test_minting_and_verifying(
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
def test_algorithm_confusion(public: bytes, alg: str) -> None:
    """The public key, which everybody has, is no HMAC secret in any of its forms."""
    expected = Reason.TOKEN_SIGNATURE if alg == "EdDSA" else Reason.TOKEN_HEADER
    assert reason(forge(HEADER | {"alg": alg}, PAYLOAD, public)) is expected


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", None, 0, [], "eddsa", "EDDSA", "Ed25519", "ES256"]
)
def test_other_algorithms(alg: object) -> None:
    """Only EdDSA, spelt so; with a signature and without one."""
    assert header_reason({"alg": alg}) is Reason.TOKEN_HEADER
    unsigned = reason(forge(HEADER | {"alg": alg}, PAYLOAD, None))
    assert unsigned is Reason.TOKEN_MALFORMED  # an empty signature is not even a token


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "/etc/passwd", "k" * 2000, "", "KEY-1", "key-1 ", "key-1\x00"]
)
def test_unknown_kid(kid: str) -> None:
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
def test_other_header_members(extra: dict[str, Any]) -> None:
    """A token that brings its own key, or wants something understood, is refused although the signature is right."""
    assert header_reason(extra) is Reason.TOKEN_HEADER


@pytest.mark.parametrize("typ", ["JWT", "jwt", "scoped+JWT", "application/scoped+jwt", "", None, 1, "at+jwt"])
def test_other_types(typ: object) -> None:
    """A token of another kind under the same key is no scoped token."""
    assert header_reason({"typ": typ}) is Reason.TOKEN_HEADER


@pytest.mark.parametrize(("name", "expected"), [("typ", "header"), ("alg", "header"), ("kid", "key_unknown")])
def test_missing_header_members(name: str, expected: str) -> None:
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


# --- form


@pytest.mark.parametrize(
    "change", ["{}=", "{}==", " {}", "{} ", "{}\n", "\ufeff{}", "Bearer {}", '"{}"', "{}.", "{}.e30"]
)
def test_other_spellings(change: str) -> None:
    """A good token with anything around it is not that token."""
    assert reason(change.format(mint(CLAIMS, KEY))) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("place", ["iat", "exp", "jti", "aud", "channels"])
def test_duplicate_claims(place: str) -> None:
    """Parsers differ in which one wins, so none does."""
    twice = json.dumps(PAYLOAD)[:-1] + f", {json.dumps(place)}: {json.dumps(PAYLOAD[place])}}}"
    assert reason(forge(HEADER, twice.encode(), PRIVATE)) is Reason.TOKEN_MALFORMED


def test_duplicate_header_members() -> None:
    """The same for the header, where a second alg might be the one that counts elsewhere."""
    twice = b'{"alg":"none","typ":"scoped+jwt","kid":"key-1","alg":"EdDSA"}'
    assert reason(forge(twice, PAYLOAD, PRIVATE)) is Reason.TOKEN_MALFORMED


def test_5_megabytes() -> None:
    """Too large, whatever is in it."""
    assert reason(mint(CLAIMS, KEY) + "A" * 5_000_000) is Reason.TOKEN_TOO_LARGE
    assert reason("." * 5_000_000) is Reason.TOKEN_TOO_LARGE


@given(
    st.text(st.characters(), max_size=300) | st.binary(max_size=100).map(lambda data: f"{b64(data)}.e30.AAAA")
)
@example("\ud800.\ud800.\ud800")
def test_any_text(text: str) -> None:
    """Whatever comes is refused with a reason, and nothing raises."""
    assert reason(text) is not None


wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*HEADER, "crit", "b64", "jku"]), wild, max_size=3),
    st.dictionaries(st.sampled_from([*PAYLOAD, "session_exp", "x"]), wild, max_size=4),
)
def test_any_claims(header: dict[str, Any], payload: dict[str, Any]) -> None:
    """Validly signed nonsense gets a reason too: `examine` explains it, `verify` refuses it, neither raises."""
    text = forge(HEADER | header, PAYLOAD | payload, PRIVATE)
    if reason(text) is None:
        assert header.keys() | payload.keys() <= {*HEADER, *PAYLOAD, "session_exp"}
    for refusal in examine(text, KEYS, now=NOW, expected=None).refusals:
        assert str(refusal).endswith(".")


# --- claims

TEXTS = ["iss", "aud", "sub", "jti", "scope", "sid"]
TIMES = ["iat", "nbf", "exp"]


@pytest.mark.parametrize("name", PAYLOAD)
def test_missing_claims(name: str) -> None:
    """All twelve are required."""
    assert claims_reason(without=name) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", ["", 1, 1.5, True, None, [], ["x"], {}, {"x": 1}])
def test_texts_of_another_type(name: str, value: object) -> None:
    """An empty text, a number, a list around the right text: none of them is the text."""
    assert claims_reason({name: value}) is Reason.TOKEN_CLAIMS
    assert claims_reason({name: [PAYLOAD[name]]}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("name", [*TIMES, "session_exp"])
@pytest.mark.parametrize(
    "value", [str(NOW), "", NOW + 0.5, float(NOW), True, None, [NOW], {}, 0, -1, 2**53, 10**31]
)
def test_times_of_another_type(name: str, value: object) -> None:
    """Whole seconds as a number; neither a text nor a fraction, and nothing that overflows a calendar."""
    assert claims_reason({name: value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(
    "value",
    [
        [],
        "prices.>",
        None,
        1,
        {},
        {"0": "a"},
        [1],
        [None],
        [["a"]],
        ["a", ""],
        ["a b"],
        [">.a"],
        ["é"],
        ["a"] * 33,
        ["a" * 65],
    ],
    ids=str,
)
def test_channels_of_another_form(value: object) -> None:
    """1 to 32 channels or patterns."""
    assert claims_reason({"channels": value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("value", [None, 1, [], ["https://app.example.com"], {}])
def test_origin_of_another_type(value: object) -> None:
    """A text, possibly empty."""
    assert claims_reason({"origin": value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("value", [0, 2, "1", 1.0, True, None, [1]])
def test_other_versions(value: object) -> None:
    """Version 1, the number."""
    assert claims_reason({"ver": value}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("name", ["admin", "roles", "cnf", "act", "", "ISS"])
def test_unknown_claims(name: str) -> None:
    """The issuer writes no others; somebody else's claim must not be believed to be understood."""
    assert claims_reason({name: 1}) is Reason.TOKEN_CLAIMS


def test_session_end_is_optional() -> None:
    """With it and without it the token is good."""
    assert claims_reason({"session_exp": NOW + 9}) is None
    assert claims_reason() is None


# --- time


@pytest.mark.parametrize(
    ("lifetime", "accepted"), [(1, True), (30, True), (31, False), (0, False), (-5, False), (604_800, False)]
)
def test_lifetime(lifetime: int, *, accepted: bool) -> None:
    """A token that claims more than 30 seconds is refused even in its first one."""
    wanted = None if accepted else Reason.TOKEN_LIFETIME
    assert claims_reason({"exp": NOW + lifetime}) is wanted


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        *[
            (0, None),
            (-1, None),
            (-2, None),
            (-2.1, "not_yet_valid"),
            (-3, "not_yet_valid"),
            (-60, "not_yet_valid"),
        ],
        *[(1, None), (3, None), (29, None), (30, None), (31, None), (31.9, None)],
        *[(32, "expired"), (33, "expired"), (60, "expired"), (90, "expired"), (1e9, "expired")],
    ],
)
def test_clock_skew(skew: float, expected: str | None) -> None:
    """Two seconds either way, counted from iat and from exp."""
    assert claims_reason(now=NOW + skew) is (Reason(f"token_{expected}") if expected else None)


@pytest.mark.parametrize(("ahead", "accepted"), [(0, True), (2, True), (3, False), (60, False)])
def test_not_before(ahead: int, *, accepted: bool) -> None:
    """nbf is checked for itself, with the same leeway."""
    assert claims_reason({"nbf": NOW + ahead}) is (None if accepted else Reason.TOKEN_NOT_YET_VALID)


# --- what it is for


@pytest.mark.parametrize(
    "audience",
    [
        "wss://stream.example.com/ws/price",
        "wss://stream.example.com/ws/prices2",
        "wss://stream.example.com/ws/prices/",
        "wss://stream.example.com:443/ws/prices",
        "WSS://stream.example.com/ws/prices",
        "wss://Stream.example.com/ws/prices",
        "wss://stream.example.com/ws/Prices",
        "wss://stream.example.com/ws/prices?x=1",
        "wss://stream.example.com/ws/%70rices",
        "wss://stream.example.com",
        "ws://stream.example.com/ws/prices",
        "https://stream.example.com/ws/prices",
        "wss://stream.example.com./ws/prices",
        " wss://stream.example.com/ws/prices",
        "*",
    ],
)
def test_other_audiences(audience: str) -> None:
    """Equal, character for character; both ways round, so that no prefix matches."""
    assert claims_reason({"aud": audience}) is Reason.TOKEN_AUDIENCE
    assert claims_reason(expected=replace(EXPECTED, audience=audience)) is Reason.TOKEN_AUDIENCE


def test_audience_in_a_list() -> None:
    """RFC 7519 allows lists; a scoped token is for one endpoint."""
    assert claims_reason({"aud": [AUDIENCE]}) is Reason.TOKEN_CLAIMS
    assert claims_reason({"aud": [AUDIENCE, "wss://other.example"]}) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iss": "https://evil.example"}, Reason.TOKEN_ISSUER),
        ({"iss": "https://app.example.com/"}, Reason.TOKEN_ISSUER),
        ({"scope": "publish"}, Reason.TOKEN_SCOPE),
        ({"scope": "subscribe publish"}, Reason.TOKEN_SCOPE),
        ({"scope": "Subscribe"}, Reason.TOKEN_SCOPE),
        ({"origin": ""}, Reason.TOKEN_ORIGIN),
        ({"origin": "null"}, Reason.TOKEN_ORIGIN),
        ({"origin": "https://app.example.com.evil.example"}, Reason.TOKEN_ORIGIN),
        ({"origin": "https://app.example.com:443"}, Reason.TOKEN_ORIGIN),
    ],
    ids=str,
)
def test_other_issuer_scope_origin(change: dict[str, Any], expected: Reason) -> None:
    """Each is compared as it stands."""
    assert claims_reason(change) is expected


def test_origin_left_to_the_caller() -> None:
    """With `origin` None in what is expected, the caller compares it; everything else is checked."""
    later = replace(EXPECTED, origin=None)
    assert claims_reason({"origin": "https://evil.example"}, expected=later) is None
    assert (
        claims_reason({"aud": "x", "origin": "https://evil.example"}, expected=later) is Reason.TOKEN_AUDIENCE
    )


def test_a_caller_without_origin() -> None:
    """A token that a server-side caller got is good where no Origin comes, and nowhere else."""
    nobody = replace(EXPECTED, origin="")
    assert claims_reason({"origin": ""}, expected=nobody) is None
    assert claims_reason(expected=nobody) is Reason.TOKEN_ORIGIN


# --- examining


def reasons(text: str, expected: Expected | None) -> list[Reason]:
    return [refusal.reason for refusal in examine(text, KEYS, now=NOW + 100, expected=expected).refusals]


def test_examine_names_every_reason() -> None:
    """A person who mends one thing after the other wants to know all of them."""
    payload = PAYLOAD | {"aud": "x", "iss": "y", "scope": "z", "origin": "o", "exp": NOW + 40}
    text = forge(HEADER | {"typ": "JWT", "jku": "x"}, payload, Ed25519PrivateKey.generate())
    endpoint = [Reason.TOKEN_ISSUER, Reason.TOKEN_AUDIENCE, Reason.TOKEN_SCOPE, Reason.TOKEN_ORIGIN]
    own = [
        Reason.TOKEN_HEADER,
        Reason.TOKEN_HEADER,
        Reason.TOKEN_SIGNATURE,
        Reason.TOKEN_LIFETIME,
        Reason.TOKEN_EXPIRED,
    ]
    assert reasons(text, EXPECTED) == own + endpoint
    assert reasons(text, None) == own


def test_examine_names_every_claim_that_is_wrong() -> None:
    """Each in a sentence of its own; times and names of the wrong type are then not compared."""
    payload = PAYLOAD | {"sub": "", "exp": "soon", "channels": [], "ver": 2, "origin": 1, "x": 1}
    del payload["jti"]
    found = examine(forge(HEADER, payload, PRIVATE), KEYS, now=NOW, expected=EXPECTED).refusals
    assert [refusal.reason for refusal in found] == [Reason.TOKEN_CLAIMS] * 7
    for refusal, name in zip(found, ["jti", "x", "sub", "exp", "origin", "ver", "channels"], strict=True):
        assert name in refusal.detail


def test_examine_of_garbage() -> None:
    """There is nothing to show, and one reason."""
    found = examine("garbage", KEYS, now=NOW, expected=EXPECTED)
    assert (found.header, found.payload, len(found.refusals)) == ({}, {}, 1)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200,
        forge(HEADER, PAYLOAD | {"iss": "\x1b" * 500}, PRIVATE),
        forge(HEADER, PAYLOAD | {"\x1b[2J\n" * 50: 1}, PRIVATE),
        forge(HEADER | {"\x1b[2J\n" * 50: 1}, PAYLOAD, PRIVATE),
        forge(HEADER | {"alg": "\x1b" * 500}, PAYLOAD, PRIVATE),
    ],
    ids=["garbage", "issuer", "claim", "header member", "alg"],
)
def test_details_stay_short(text: str) -> None:
    """A detail goes into a log; what an attacker wrote into a token neither fills it nor steers a terminal."""
    refusals = examine(text, KEYS, now=NOW, expected=EXPECTED).refusals
    assert refusals
    for refusal in refusals:
        assert len(str(refusal)) < 500
        assert str(refusal).isprintable()
