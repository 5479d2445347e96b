"""Tokens for a service, made with the issuer's key and wrong in one way each, and the service's side of it."""

import secrets
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.keys.jwks import to_jwks, verify_key
from relay.verify import MemorySingleUse, SingleUse, Verifier
from tests.support.jws_forgery import forge

ISSUER = "https://app.example.com"
AUDIENCE = "https://reports.example.com/v1/export"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = verify_key(PRIVATE.public_key())
JWKS = to_jwks({PUBLIC.kid: PUBLIC})


def token(header: dict[str, Any] | None = None, *, key: Ed25519PrivateKey = PRIVATE, **claims: Any) -> str:
    """Return a token that the service takes from the application's page, with changes; None leaves a claim out."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-7",
        "iat": now,
        "nbf": now,
        "exp": now + 30,
        "jti": secrets.token_urlsafe(16),
        "scope": "call",
        "sid": "0" * 32,
        "origin": ISSUER,
        "ver": 1,
    }
    payload = {name: value for name, value in (good | claims).items() if value is not None}
    return forge({"typ": "scoped+jwt", "alg": "EdDSA", "kid": PUBLIC.kid} | (header or {}), payload, key)


def bad_tokens() -> dict[str, str]:
    """Return tokens that are refused whatever the origin, by what is wrong with them."""
    now = int(time.time())
    head, body, signature = token().split(".")
    return {
        "garbage": "garbage",
        "no signature": f"{head}.{body}.",
        "another signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "too long": "A" * 5000,
        "a stranger's key": token(key=Ed25519PrivateKey.generate()),
        "unknown kid": token({"kid": "0" * 16}),
        "another typ": token({"typ": "JWT"}),
        "expired": token(iat=now - 60, nbf=now - 60, exp=now - 30),
        "not yet valid": token(iat=now + 60, nbf=now + 60, exp=now + 90),
        "an hour's life": token(exp=now + 3600),
        "another issuer": token(iss="https://evil.example"),
        "another service": token(aud="https://bills.example.com/v1/export"),
        "a path below": token(aud=f"{AUDIENCE}/"),
        "a socket's, at this URL": token(scope="subscribe", channels=["prices.>"]),
        "a socket's": token(
            scope="subscribe", channels=["prices.>"], aud="wss://stream.example.com/ws/prices"
        ),
        "channels": token(channels=["prices.>"]),
        "a session that has ended": token(session_exp=now - 1),
    }


def verifier(*, single_use: SingleUse | None = None, **options: Any) -> Verifier:
    """Return the service's verifier."""
    settings: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "keys": JWKS}
    return Verifier(**(settings | options), single_use=single_use or MemorySingleUse())
