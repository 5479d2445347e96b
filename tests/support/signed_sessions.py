"""Signed sessions for tests: keys of every algorithm, tokens, and a verifier's answer."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.core.errors import Reason, Refusal
from relay.sessions.base import Session
from relay.sessions.signed import SignedOptions, SignedVerifier
from tests.support.jws_forgery import forge

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
