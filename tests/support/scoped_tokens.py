"""Scoped tokens for the tests of the core: a key, valid claims, and the reason for which changed ones are refused."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.core.errors import Reason, Refusal
from relay.core.jws import VerifyKey
from relay.core.tokens import (
    Claims,
    Expected,
    SigningKey,
    examine,
    verify,
)
from tests.support.jws_forgery import forge

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
