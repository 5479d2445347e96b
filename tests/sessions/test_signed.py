"""Sessions that are signed JWTs: who is behind one, and by which algorithm."""

import base64
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.core.errors import Reason, Refusal
from relay.sessions.base import Session
from relay.sessions.claims import ClaimNames
from relay.sessions.session_ref import session_ref
from relay.sessions.signed import SignedVerifier
from relay.sessions.signed_keys import ALGORITHMS
from tests.support.jws_forgery import b64, forge
from tests.support.signed_sessions import (
    ED25519,
    NOW,
    OPTIONS,
    PAYLOAD,
    PRIVATE_KEYS,
    REF_KEY,
    SECRET,
    public_pem,
    reason,
    session,
    token,
)

# --- a session


async def test_a_signed_token_is_a_session() -> None:
    """Who it is, with which roles, and a reference instead of the session's id."""
    assert await session(token()) == Session(
        subject="user-7",
        roles=("trader", "guest"),
        ref=session_ref(REF_KEY, session_id="session-1", subject="user-7"),
        own_id=True,
        issued_at=NOW - 60,
        token_issued_at=NOW - 60,
        token_expires_at=NOW + 840,
    )


async def test_without_a_session_id() -> None:
    """The reference then stands for the user, in every token of his, and `own_id` says so."""
    one = await session(token(without="sid"))
    other = await session(token({"iat": NOW - 5, "jti": "another"}, without="sid"))
    assert one.ref == other.ref == session_ref(REF_KEY, session_id=None, subject="user-7")
    assert not one.own_id


async def test_without_a_session_claim_in_the_settings() -> None:
    """A claim that nobody named is not looked at, whatever is in it."""
    verifier = SignedVerifier(replace(OPTIONS, claims=ClaimNames(session=None)))
    assert not (await session(token(), verifier)).own_id
    assert not (await session(token({"sid": 1}), verifier)).own_id


async def test_the_settings_name_the_claims() -> None:
    """The settings say which claims mean what."""
    verifier = SignedVerifier(
        replace(OPTIONS, claims=ClaimNames(subject="uid", roles="groups", session="session"))
    )
    found = await session(token({"uid": "u", "groups": "g", "session": "s"}), verifier)
    assert (found.subject, found.roles) == ("u", ("g",))
    assert found.ref == session_ref(REF_KEY, session_id="s", subject="u")


@pytest.mark.parametrize(
    ("roles", "expected"),
    [(["a", "b"], ("a", "b")), ("a", ("a",)), ("a b,c", ("a b,c",)), ([], ())],
)
async def test_roles_are_a_list_or_one_text(roles: object, expected: tuple[str, ...]) -> None:
    """A list, or one role as a text, which is not split."""
    assert (await session(token({"roles": roles}))).roles == expected


async def test_a_session_without_a_roles_claim_has_no_roles() -> None:
    """No claim, no roles: the policy then grants nothing."""
    assert (await session(token(without="roles"))).roles == ()


@pytest.mark.parametrize("iat", [NOW - 60, NOW - 60.5])
async def test_a_session_keeps_its_issued_at_time(iat: float) -> None:
    """It tells whether a revocation came after it; RFC 7519 allows a fraction."""
    assert (await session(token({"iat": iat}))).issued_at == iat


async def test_a_session_without_iat_is_older_than_every_revocation() -> None:
    """The session then counts as older than every revocation."""
    assert (await session(token(without="iat"))).issued_at == 0


@pytest.mark.parametrize("at", [NOW * 1000, NOW + 3600])
async def test_a_log_in_time_in_the_future_is_refused(at: int) -> None:
    """In milliseconds, or by a clock that is an hour ahead: it would outlive every revocation."""
    named = SignedVerifier(replace(OPTIONS, claims=ClaimNames(issued_at="auth_time")))
    answer = await named.verify(token({"auth_time": at}), now=NOW)
    assert isinstance(answer, Refusal)
    assert ("milliseconds?" if at > NOW + 3600 else "auth_time lies 3600 s in the future") in str(answer)


@pytest.mark.parametrize(("late", "known"), [(100, True), (700, False)])
async def test_a_session_that_is_over_is_known_for_a_while(late: int, known: bool) -> None:
    """To who logs out with it; to nobody else, and a forged one never."""
    verifier = SignedVerifier(OPTIONS)
    over = token({"exp": NOW - late})
    assert isinstance(await verifier.verify(over, now=NOW), Refusal)
    assert isinstance(await verifier.verify(over, now=NOW, grace_s=600), Session) == known
    assert isinstance(await verifier.verify(over[:-6] + "AAAAAA", now=NOW, grace_s=600), Refusal)


@pytest.mark.parametrize("length", [256, 257])
async def test_a_session_id_fits_into_a_revocation(length: int) -> None:
    """One that is longer could not be named there."""
    answer = await SignedVerifier(OPTIONS).verify(token({"sid": "s" * length}), now=NOW)
    assert isinstance(answer, Session) == (length == 256)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_each_supported_algorithm_is_a_session(algorithm: str) -> None:
    """What PyJWT signs with the backend's key is a session; with one byte changed it is none."""
    named = algorithm.replace("Ed25519", "EdDSA")  # PyJWT knows the older name only
    private = PRIVATE_KEYS.get(named)
    key = public_pem(private) if private else SECRET
    verifier = SignedVerifier(replace(OPTIONS, algorithm=algorithm, key=key))
    text = jwt.encode(PAYLOAD, private or SECRET.decode(), algorithm=named)
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


async def test_a_token_without_a_signature_is_refused() -> None:
    """With alg none, or with the right alg and nothing behind the dot."""
    for alg in ("none", "HS256"):
        assert await reason(forge({"alg": alg}, PAYLOAD, None)) is Reason.SESSION_INVALID


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_public_key_is_never_an_hmac_secret(algorithm: str) -> None:
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
        {"kid": True},
        {"kid": "x" * 1025},
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
    assert (await session(token(kid=7))).subject == "user-7"
    assert (await session(token(**own))).subject == "user-7"
    assert await reason(forge({"alg": "HS256"} | own, PAYLOAD, b"x" * 32)) is Reason.SESSION_INVALID
