"""Sessions signed by the backend: the right token of the right kind, and one sentence for every wrong setting."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import ConfigurationError, Reason, Refusal
from relay.core.tokens import Claims, SigningKey, mint
from relay.sessions.base import Session
from relay.sessions.refs import session_ref
from relay.sessions.signed import ALGORITHMS, SignedOptions, SignedVerifier
from tests.keys.forging import b64, forge

NOW = 1_795_319_000
SECRET = b"a secret of the backend that has more than 64 bytes, for HS512 too"
REF_KEY = b"r" * 32
OPTIONS = SignedOptions(algorithm="HS256", key=SECRET, ref_key=REF_KEY, require={"token_use": "access"})
VERIFIER = SignedVerifier(OPTIONS)
PAYLOAD: dict[str, Any] = {
    "sub": "user-7",
    "roles": ["trader", "guest"],
    "sid": "session-1",
    "token_use": "access",
    "iat": NOW - 60,
    "exp": NOW + 840,
}

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
PRIVATE_KEYS: dict[str, Any] = {
    "RS256": RSA,
    "RS384": RSA,
    "RS512": RSA,
    "PS256": RSA,
    "PS384": RSA,
    "PS512": RSA,
    "ES256": P256,
    "ES384": P384,
    "ES512": P521,
    "EdDSA": ED25519,
}


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def token(changes: dict[str, Any] | None = None, *, without: str | None = None, **header: Any) -> str:
    payload = {name: value for name, value in (PAYLOAD | (changes or {})).items() if name != without}
    return forge({"typ": "JWT", "alg": "HS256"} | header, payload, SECRET)


async def session(text: str, verifier: SignedVerifier = VERIFIER, *, now: float = NOW) -> Session:
    result = await verifier.verify(text, now=now)
    assert isinstance(result, Session), result
    return result


async def reason(text: str, verifier: SignedVerifier = VERIFIER, *, now: float = NOW) -> Reason | None:
    result = await verifier.verify(text, now=now)
    if isinstance(result, Refusal):
        assert str(result).endswith(".")
        return result.reason
    return None


# --- a session


async def test_a_session() -> None:
    """Who it is, with which roles, and a reference instead of the session's id."""
    assert await session(token()) == Session(
        subject="user-7",
        roles=("trader", "guest"),
        ref=session_ref(REF_KEY, session_id="session-1", subject="user-7"),
        own_id=True,
        issued_at=NOW - 60,
        expires_at=None,
    )


async def test_without_a_session_id() -> None:
    """The reference then stands for the user, in every token of his, and `own_id` says so."""
    one = await session(token(without="sid"))
    other = await session(token({"iat": NOW - 5, "jti": "another"}, without="sid"))
    assert one.ref == other.ref == session_ref(REF_KEY, session_id=None, subject="user-7")
    assert not one.own_id


async def test_without_a_session_claim_in_the_settings() -> None:
    """A claim that nobody named is not looked at, whatever is in it."""
    verifier = SignedVerifier(replace(OPTIONS, session_claim=None))
    assert not (await session(token(), verifier)).own_id
    assert not (await session(token({"sid": 1}), verifier)).own_id


async def test_other_claim_names() -> None:
    """The settings say which claims mean what."""
    verifier = SignedVerifier(
        replace(OPTIONS, subject_claim="uid", roles_claim="groups", session_claim="session")
    )
    found = await session(token({"uid": "u", "groups": "g", "session": "s"}), verifier)
    assert (found.subject, found.roles) == ("u", ("g",))
    assert found.ref == session_ref(REF_KEY, session_id="s", subject="u")


@pytest.mark.parametrize(
    ("roles", "expected"),
    [(["a", "b"], ("a", "b")), ("a", ("a",)), ("a b,c", ("a b,c",)), ([], ())],
)
async def test_roles(roles: object, expected: tuple[str, ...]) -> None:
    """A list, or one role as a text, which is not split."""
    assert (await session(token({"roles": roles}))).roles == expected


async def test_without_roles() -> None:
    """No claim, no roles: the policy then grants nothing."""
    assert (await session(token(without="roles"))).roles == ()


@pytest.mark.parametrize("iat", [NOW - 60, NOW - 60.5])
async def test_issued_at(iat: float) -> None:
    """It tells whether a revocation came after it; RFC 7519 allows a fraction."""
    assert (await session(token({"iat": iat}))).issued_at == iat


async def test_without_iat() -> None:
    """The session then counts as older than every revocation."""
    assert (await session(token(without="iat"))).issued_at == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm(algorithm: str) -> None:
    """What PyJWT signs with the backend's key is a session; with one byte changed it is none."""
    private = PRIVATE_KEYS.get(algorithm)
    key = public_pem(private) if private else SECRET
    verifier = SignedVerifier(replace(OPTIONS, algorithm=algorithm, key=key))
    text = jwt.encode(PAYLOAD, private or SECRET.decode(), algorithm=algorithm)
    assert (await session(text, verifier)).subject == "user-7"
    head, payload, signature = text.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[len(raw) // 2] ^= 1
    assert await reason(f"{head}.{payload}.{b64(bytes(raw))}", verifier) is Reason.SESSION_INVALID


async def test_signed_by_somebody_else() -> None:
    """Another secret, another key."""
    assert await reason(forge({"alg": "HS256"}, PAYLOAD, b"x" * 32)) is Reason.SESSION_INVALID
    verifier = SignedVerifier(replace(OPTIONS, algorithm="EdDSA", key=public_pem(ED25519)))
    other = ed25519.Ed25519PrivateKey.generate()
    assert await reason(forge({"alg": "EdDSA"}, PAYLOAD, other), verifier) is Reason.SESSION_INVALID


# --- algorithms


@pytest.mark.parametrize(
    "alg", ["none", "None", "hs256", "HS384", "HS512", "RS256", "EdDSA", "", None, 256, ["HS256"]]
)
async def test_other_algorithms_in_the_header(alg: object) -> None:
    """Exactly one is accepted, and the header does not choose it."""
    assert await reason(token(alg=alg)) is Reason.SESSION_INVALID


async def test_no_signature() -> None:
    """With alg none, or with the right alg and nothing behind the dot."""
    for alg in ("none", "HS256"):
        assert await reason(forge({"alg": alg}, PAYLOAD, None)) is Reason.SESSION_INVALID


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_algorithm_confusion(algorithm: str) -> None:
    """An HMAC with the public key as its secret, in each of its forms, is no signature."""
    private = PRIVATE_KEYS[algorithm]
    pem = public_pem(private)
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    verifier = SignedVerifier(replace(OPTIONS, algorithm=algorithm, key=pem))
    for secret in (pem, pem.strip(), der, base64.b64encode(der)):
        for alg in ("HS256", algorithm):
            assert await reason(forge({"alg": alg}, PAYLOAD, secret), verifier) is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": True, "crit": ["b64"]},
        {"kid": 1},
    ],
)
async def test_headers_that_change_the_meaning(header: dict[str, Any]) -> None:
    """What has to be understood, and is not, refuses the token."""
    assert await reason(token(**header)) is Reason.SESSION_INVALID


async def test_headers_that_name_keys_are_ignored() -> None:
    """The key is the one of the settings; nothing is fetched and nothing else believed."""
    own: dict[str, Any] = {
        "jwk": {"kty": "oct", "k": b64(b"x" * 32)},
        "jku": "https://evil.example",
        "x5u": "file:///etc/passwd",
        "kid": "../x",
    }
    assert (await session(token(**own))).subject == "user-7"
    assert await reason(forge({"alg": "HS256"} | own, PAYLOAD, b"x" * 32)) is Reason.SESSION_INVALID


# --- kinds of tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"token_use": "refresh"},
        {"token_use": None},
        {"token_use": ["access"]},
        {"token_use": "Access"},
        {"token_use": True},
    ],
    ids=str,
)
async def test_a_refresh_token_is_no_session(changes: dict[str, Any]) -> None:
    """Validly signed by the same backend, for something else."""
    assert await reason(token(changes)) is Reason.SESSION_INVALID
    assert await reason(token(without="token_use")) is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    ("wanted", "claim"), [(True, 1), (1, True), (1, 1.0), ("1", 1), (False, 0), (0, None)]
)
async def test_required_values_have_a_type(wanted: str | int | bool, claim: object) -> None:
    """True is not 1, although Python says so."""
    verifier = SignedVerifier(replace(OPTIONS, require={"mark": wanted}))
    assert (await session(token({"mark": wanted}), verifier)).subject == "user-7"
    assert await reason(token({"mark": claim}), verifier) is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    ("typ", "header", "accepted"),
    [
        *[
            ("at+jwt", "at+jwt", True),
            ("at+jwt", "application/AT+JWT", True),
            ("application/at+jwt", "at+jwt", True),
        ],
        *[
            ("at+jwt", "JWT", False),
            ("at+jwt", None, False),
            ("at+jwt", "", False),
            ("at+jwt", ["at+jwt"], False),
        ],
    ],
)
async def test_typ(typ: str, header: object, *, accepted: bool) -> None:
    """Compared as a media type (RFC 7515 §4.1.9)."""
    verifier = SignedVerifier(replace(OPTIONS, require={}, typ=typ))
    assert await reason(token(typ=header), verifier) is (None if accepted else Reason.SESSION_INVALID)


@pytest.mark.parametrize(
    ("audience", "accepted"),
    [
        *[("relay", True), (["relay"], True), (["other", "relay"], True)],
        *[
            ("relay2", False),
            ("", False),
            ([], False),
            (["other"], False),
            (None, False),
            ({"relay": 1}, False),
            ([["relay"]], False),
        ],
    ],
)
async def test_audience(audience: object, *, accepted: bool) -> None:
    """One, or a list that has it (RFC 7519 §4.1.3)."""
    verifier = SignedVerifier(replace(OPTIONS, require={}, audience="relay"))
    assert await reason(token({"aud": audience}), verifier) is (None if accepted else Reason.SESSION_INVALID)
    assert await reason(token(), verifier) is Reason.SESSION_INVALID


@pytest.mark.parametrize("issuer", ["https://other", "https://backend/", None, ["https://backend"], ""])
async def test_issuer(issuer: object) -> None:
    """Exactly the one of the settings, where one is set."""
    verifier = SignedVerifier(replace(OPTIONS, issuer="https://backend"))
    assert (await session(token({"iss": "https://backend"}), verifier)).subject == "user-7"
    assert await reason(token({"iss": issuer}), verifier) is Reason.SESSION_INVALID
    assert await reason(token(), verifier) is Reason.SESSION_INVALID


@pytest.mark.parametrize("typ", ["scoped+jwt", "SCOPED+JWT", "application/scoped+jwt"])
async def test_a_scoped_token_is_never_a_session(typ: str) -> None:
    """Not even one that the backend itself signed, with every claim of a session."""
    assert await reason(token(typ=typ)) is Reason.SESSION_INVALID


async def test_our_own_scoped_token_is_no_session() -> None:
    """The setting with which it could pass is the issuer's key as the session's key; it still does not."""
    claims = Claims(
        issuer="https://app.example.com",
        audience="wss://stream.example.com/ws/prices",
        subject="user-7",
        session_ref="0" * 32,
        channels=("prices.>",),
        origin="",
        jti="A" * 22,
        issued_at=NOW,
        expires_at=NOW + 30,
    )
    options = replace(OPTIONS, algorithm="EdDSA", key=public_pem(ED25519), require={"scope": "subscribe"})
    text = mint(claims, SigningKey(kid="k", key=ED25519))
    result = await SignedVerifier(options).verify(text, now=NOW)
    assert isinstance(result, Refusal)
    assert "scoped token" in result.detail


# --- time


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        *[(0, None), (839, None), (841, None), (841.9, None)],
        *[(842, Reason.SESSION_EXPIRED), (900, Reason.SESSION_EXPIRED), (604_800, Reason.SESSION_EXPIRED)],
        *[(-62, None), (-63, Reason.SESSION_INVALID)],
    ],
)
async def test_times(skew: float, expected: Reason | None) -> None:
    """Expired is an answer of its own: it is what a refresh mends. The leeway is two seconds."""
    assert await reason(token(), now=NOW + skew) is expected


@pytest.mark.parametrize(("ahead", "accepted"), [(-60, True), (2, True), (3, False)])
async def test_not_before(ahead: int, *, accepted: bool) -> None:
    """nbf counts where it is set."""
    assert await reason(token({"nbf": NOW + ahead})) is (None if accepted else Reason.SESSION_INVALID)


async def test_a_token_that_never_ends() -> None:
    """exp is required."""
    assert await reason(token(without="exp")) is Reason.SESSION_INVALID


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [str(NOW), "", True, None, [NOW], {}, 0, -1, 2**53, 10**30])
async def test_times_of_another_type(name: str, value: object) -> None:
    """Numbers, and such as a calendar has."""
    assert await reason(token({name: value})) is Reason.SESSION_INVALID


async def test_a_leeway_of_its_own() -> None:
    """Backends with bad clocks get more."""
    verifier = SignedVerifier(replace(OPTIONS, leeway_s=60))
    assert await reason(token(), verifier, now=NOW + 899) is None
    assert await reason(token(), verifier, now=NOW + 900) is Reason.SESSION_EXPIRED


async def test_expired_comes_last() -> None:
    """What is wrong in itself is not called expired: no refresh would mend it."""
    assert await reason(token({"token_use": "refresh", "exp": NOW - 900})) is Reason.SESSION_INVALID


# --- form


@pytest.mark.parametrize(
    "changes",
    [
        *[{"sub": ""}, {"sub": 7}, {"sub": None}, {"sub": ["user-7"]}, {"sub": True}, {"sub": "x" * 257}],
        *[
            {"roles": 1},
            {"roles": {"trader": True}},
            {"roles": [1]},
            {"roles": [""]},
            {"roles": ""},
            {"roles": None},
            {"roles": [["a"]]},
        ],
        *[{"sid": ""}, {"sid": 1}, {"sid": None}, {"sid": ["session-1"]}],
    ],
    ids=str,
)
async def test_claims_of_another_form(changes: dict[str, Any]) -> None:
    """A claim that is there and is not what it should be refuses the token, and is not taken for absent."""
    assert await reason(token(changes)) is Reason.SESSION_INVALID


async def test_without_a_subject() -> None:
    """A session is somebody's."""
    assert await reason(token(without="sub")) is Reason.SESSION_INVALID


async def test_duplicate_claims() -> None:
    """Parsers differ in which one wins: one of them sees an admin."""
    twice = json.dumps(PAYLOAD)[:-1] + ', "sub": "admin"}'
    assert await reason(forge({"alg": "HS256"}, twice.encode(), SECRET)) is Reason.SESSION_INVALID


@pytest.mark.parametrize("change", ["", "{}=", "{} ", " {}", '"{}"', "Bearer {}", "{}.", "{}\n", "{}é"])
async def test_other_spellings(change: str) -> None:
    """A good token with anything around it, or nothing at all."""
    assert await reason(change.format(token())) is Reason.SESSION_INVALID


async def test_sizes() -> None:
    """8192 bytes are the most, and 5 MB are refused as fast."""
    room = {"pad": "x" * 5500}
    assert len(token(room)) < 8192
    assert (await session(token(room))).subject == "user-7"
    assert await reason(token({"pad": "x" * 6100})) is Reason.SESSION_INVALID
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
async def test_any_claims(changes: dict[str, Any], header: dict[str, Any]) -> None:
    """Validly signed nonsense is a session or a refusal, and nothing raises."""
    assert await reason(token(changes, **header)) in (None, Reason.SESSION_INVALID, Reason.SESSION_EXPIRED)


@given(
    st.text(st.characters(), max_size=300) | st.binary(max_size=90).map(lambda data: f"{b64(data)}.e30.AAAA")
)
@example("\ud800.\ud800.\ud800")
async def test_any_text(text: str) -> None:
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
def test_short_secrets(algorithm: str, least: int) -> None:
    """As long as the hash, which is what RFC 7518 §3.2 asks for."""
    SignedVerifier(replace(OPTIONS, algorithm=algorithm, key=b"s" * least))
    assert f"needs {least} or more" in mistake(replace(OPTIONS, algorithm=algorithm, key=b"s" * (least - 1)))
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
    assert "everybody who knows it could sign" in mistake(replace(OPTIONS, algorithm=algorithm, key=make()))


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
        assert "of another kind" in mistake(replace(OPTIONS, algorithm=algorithm, key=public_pem(key)))


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
    assert "BEGIN" not in text


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
