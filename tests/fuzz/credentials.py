"""Tokens, sessions and keys: what strangers show as proof of who they are, and what publishers of keys answer."""

import json

from relay.core import strict_json
from relay.core.errors import ConfigurationError, MalformedError, Reason, Refusal
from relay.core.tokens import Claims, claimed_identity, examine, signed_claims, verify
from relay.keys.api_keys import check_bearer, hash_secret
from relay.keys.jwks import from_jwks, to_jwks
from relay.sessions.base import Session
from relay.sessions.chain import VerifierChain
from relay.sessions.claims import ClaimNames, check_times, to_session
from relay.sessions.cookies import SessionCookies, find_session
from relay.sessions.signed import SignedOptions, SignedVerifier
from relay.sessions.signed_keys import ALGORITHMS, load_key, read_keys
from tests.fuzz.target import Target, at_once, latin, text_of
from tests.support.authjs_sessions import MINTED_AT, NAMES, RECORDED, VERIFIER, encrypted
from tests.support.jws_forgery import b64, forge
from tests.support.scoped_tokens import EXPECTED, HEADER, KEYS, NOW, PAYLOAD, PRIVATE

SECRET = b"a secret of the backend's, of enough bytes"
REF_KEY = b"a key for references"
ACCESS = {"sub": "u", "roles": ["a"], "sid": "s", "token_use": "access", "iat": NOW, "exp": NOW + 900}
SIGNED = SignedVerifier(
    SignedOptions(algorithm="HS256", key=SECRET, ref_key=REF_KEY, require={"token_use": "access"})
)
CHAIN = VerifierChain([VERIFIER, SIGNED])
COOKIES = SessionCookies(names=("access-token", *NAMES))
NESTED = ClaimNames(subject="user.id", roles="user.roles", session="user.session", issued_at="auth_time")


def token(data: bytes) -> None:
    """Any text as a token: refused, for the same reason by all three readers."""
    _check_token(text_of(data))


def token_parts(data: bytes) -> None:
    """Any header and payload with a valid signature: the checks after the signature."""
    header, _, payload = data.partition(b"\n")
    _check_token(forge(header, payload, PRIVATE))


def _check_token(text: str) -> None:
    result = verify(text, KEYS, now=NOW, expected=EXPECTED)
    refusals = examine(text, KEYS, now=NOW, expected=EXPECTED).refusals
    examine(text, KEYS, now=NOW, expected=None)
    said = signed_claims(text, KEYS)
    assert all(map(str, claimed_identity(text).values()))
    if isinstance(result, Refusal):
        assert refusals[0] == result
        str(result).encode()  # the audit log writes it out
    else:
        assert not refusals
        claims, _ = result
        assert said is not None
        assert isinstance(said[0], Claims)
        assert claims.audience == EXPECTED.audience
        assert 0 < claims.expires_at - claims.issued_at <= 30


def session(data: bytes) -> None:
    """Any text as a session, for several verifiers in their order."""
    credential = latin(data)
    answer = at_once(CHAIN.verify(credential, now=NOW))
    assert isinstance(answer, Refusal), "nobody forges a session"
    assert answer.reason in (Reason.SESSION_INVALID, Reason.SESSION_EXPIRED)
    str(answer).encode()


def session_claims(data: bytes) -> None:
    """Any claims of a session that is truly signed or encrypted, or that the backend's /auth/me answers with."""
    for credential in (forge({"alg": "HS256"}, data, SECRET), encrypted(data)):
        _check_session(at_once(CHAIN.verify(credential, now=NOW)))
    try:
        payload = strict_json.parse_object(data)
    except ValueError:
        return
    check_times(payload, now=NOW, leeway_s=2, grace_s=0)
    for names in (ClaimNames(), NESTED):
        _check_session(to_session(payload, names, ref_key=REF_KEY, now=NOW, leeway_s=60))


def _check_session(answer: Session | Refusal) -> None:
    if isinstance(answer, Session):
        json.dumps([answer.subject, answer.roles], ensure_ascii=False).encode()
        assert answer.subject
        int(answer.issued_at)
    else:
        str(answer).encode()


def cookie(data: bytes) -> None:
    """Any Cookie headers, one a line: one value, or a refusal, never a value with what a cookie can't have."""
    headers = [latin(line) for line in data.split(b"\n")]
    found = find_session(headers, COOKIES)
    if isinstance(found, Refusal):
        str(found).encode()
        return
    assert found
    assert ";" not in found
    at_once(CHAIN.verify(found, now=NOW))


def jwks(data: bytes) -> None:
    """Any answer of who publishes keys, read by a stream and by each kind of session verifier."""
    try:
        document = strict_json.parse_object(data)
    except ValueError:
        return
    try:
        keys = from_jwks(document)
        assert from_jwks(to_jwks(keys)).keys() == keys.keys()
        assert all(key.verifies(b"", b"") is False for key in keys.values())
    except MalformedError as error:
        error.detail.encode()
    for algorithm in ALGORITHMS:
        if algorithm.startswith("HS"):
            continue  # never published
        try:
            for key in read_keys(document, algorithm).keys:
                assert key.verifies(b"", b"") is False
        except MalformedError as error:
            error.detail.encode()


def key_text(data: bytes) -> None:
    """Any text as the key of signed sessions: a key of its algorithm, or one sentence."""
    for algorithm in ("HS256", "RS256", "ES256", "EdDSA"):
        try:
            assert load_key(algorithm, data).verifies(b"", b"") is False
        except ConfigurationError as error:
            str(error).encode()


def bearer_key(data: bytes) -> None:
    """Any publisher's or operator's key."""
    presented = latin(data)
    assert check_bearer(presented, {"pricing": [hash_secret("right")]}) == (
        "pricing" if presented == "pricing.right" else None
    )


_OKP = {"kty": "OKP", "crv": "Ed25519", "x": b64(PRIVATE.public_key().public_bytes_raw()), "kid": "a"}
_EC = {"kty": "EC", "crv": "P-256", "kid": "b", "x": b64(b"\x01" * 32), "y": b64(b"\x02" * 32)}
_RSA = {"kty": "RSA", "kid": "c", "n": b64(b"\xc1" * 256), "e": "AQAB", "use": "sig", "key_ops": ["verify"]}
_GOOD = forge(HEADER, PAYLOAD, PRIVATE)

TARGETS = (
    Target(
        name="token", feed=token, seeds=(_GOOD.encode(), f"{_GOOD}=".encode(), b"..", b"\xff.\xff.\xff", b"a")
    ),
    Target(
        name="token-parts",
        feed=token_parts,
        seeds=(
            json.dumps(HEADER).encode() + b"\n" + json.dumps(PAYLOAD).encode(),
            json.dumps(HEADER).encode()
            + b"\n"
            + json.dumps(PAYLOAD | {"session_exp": NOW, "session_iat": NOW, "asker": "a"}).encode(),
            b'{"typ":"scoped+jwt","alg":"EdDSA","kid":[],"jku":"\\ud800"}\n{"exp":1e999,"iat":[],"aud":{}}',
        ),
    ),
    Target(
        name="session",
        feed=session,
        seeds=(
            forge({"alg": "HS256"}, ACCESS, b"another secret").encode(),
            encrypted(secret="another secret of an application's").encode(),
            encrypted(secret="another secret of an application's", version=4).encode(),
            b"a.b.c.d.e",
        ),
    ),
    Target(
        name="session-claims",
        feed=session_claims,
        seeds=(
            json.dumps(ACCESS).encode(),
            json.dumps({"user": {"id": 7, "roles": "a", "session": 1}, "auth_time": NOW}).encode(),
            json.dumps(ACCESS | {"iat": MINTED_AT + 0.5, "nbf": 1e300, "roles": [""]}).encode(),
        ),
    ),
    Target(
        name="cookie",
        feed=cookie,
        seeds=(
            *(header.encode() for header in RECORDED["cookies"].values()),
            b'access-token="a"; access-token=b',
            b"authjs.session-token.0=a; authjs.session-token.1=b\nauthjs.session-token.2=c",
            b"authjs.session-token.00=a; =; ;authjs.session-token.\xb2=b",
        ),
    ),
    Target(
        name="jwks",
        feed=jwks,
        seeds=(
            json.dumps({"keys": [_OKP, _EC, _RSA]}).encode(),
            *(json.dumps({"keys": [key]}).encode() for key in (_OKP, _EC, _RSA)),
            json.dumps({"keys": [_RSA | {"e": "AA", "oth": []}]}).encode(),
        ),
    ),
    Target(
        name="key-text",
        feed=key_text,
        seeds=(
            b"-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEA\\n-----END PUBLIC KEY-----",
            b"MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm",
            json.dumps(_OKP).encode(),
            b'{"kty":"EC","crv":[],"x":{}}',
        ),
    ),
    Target(name="bearer-key", feed=bearer_key, seeds=(b"pricing.right", b"pricing.", b"\xff.\xff", b".")),
)
