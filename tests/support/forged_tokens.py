"""Scoped tokens that should not work, each wrong in one way, made with the relay's own key where that is the point."""

import json
import secrets
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.core.tokens import SigningKey
from relay.keys.files import load_keys
from tests.support.jws_forgery import b64, forge
from tests.support.relay_process import SECRET, Relay


def issuer_key(relay: Relay) -> SigningKey:
    """Return the private key that the relay signs with."""
    key = load_keys(relay.folder / "keys").signing
    assert key is not None
    return key


def claims(relay: Relay, **changed: Any) -> dict[str, Any]:
    """Return the claims of a token that would be accepted, with changes; None takes a claim away."""
    now = int(time.time())
    good = {
        "iss": relay.url,
        "aud": f"{relay.stream_url}/ws/prices",
        "sub": "user-1",
        "iat": now,
        "nbf": now,
        "exp": now + 30,
        "jti": secrets.token_urlsafe(16),
        "scope": "subscribe",
        "channels": ["prices.>"],
        "sid": "0" * 32,
        "origin": relay.url,
        "ver": 1,
    }
    return {name: value for name, value in (good | changed).items() if value is not None}


def signed(relay: Relay, payload: dict[str, Any] | bytes, header: dict[str, Any] | None = None) -> str:
    """Sign with the relay's own key: what is wrong is the content alone."""
    key = issuer_key(relay)
    return forge({"typ": "scoped+jwt", "alg": "EdDSA", "kid": key.kid} | (header or {}), payload, key.key)


def forged(relay: Relay) -> dict[str, str]:
    """Return tokens that are no good, by what is wrong with them."""
    now = int(time.time())
    own = issuer_key(relay)
    public = own.key.public_key()
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def mixed(algorithm: str, secret: bytes | Ed25519PrivateKey | None, **more: Any) -> str:
        return forge({"typ": "scoped+jwt", "alg": algorithm, "kid": own.kid} | more, claims(relay), secret)

    good = signed(relay, claims(relay))
    head, body, signature = good.split(".")
    duplicate = json.dumps(claims(relay))[:-1] + ',"sub":"admin"}'
    return {
        "garbage": "garbage",
        "two parts": f"{head}.{body}",
        "no signature": f"{head}.{body}.",
        "other body": f"{head}.{b64(json.dumps(claims(relay, sub='admin')).encode())}.{signature}",
        "alg none": mixed("none", None),
        "alg none with a signature": mixed("none", own.key),
        "alg NONE": mixed("NONE", None),
        "alg in lower case": mixed("eddsa", own.key),
        "HS256 with the raw public key": mixed("HS256", raw),
        "HS256 with the PEM": mixed("HS256", pem),
        "HS256 with the base64 key": mixed("HS256", b64(raw).encode()),
        "HS256 with the backend's secret": mixed("HS256", SECRET.encode()),
        "a stranger's key": mixed("EdDSA", Ed25519PrivateKey.generate()),
        "unknown kid": signed(relay, claims(relay), {"kid": "0" * 16}),
        "kid with a path": signed(relay, claims(relay), {"kid": "../../../../etc/passwd"}),
        "kid of 2 KB": signed(relay, claims(relay), {"kid": "k" * 2000}),
        "kid that is a number": signed(relay, claims(relay), {"kid": 1}),
        "kid that is a list": signed(relay, claims(relay), {"kid": ["x"]}),
        "jku": signed(relay, claims(relay), {"jku": "http://127.0.0.1:9/jwks.json"}),
        "jwk": signed(relay, claims(relay), {"jwk": {"kty": "OKP"}}),
        "x5u": signed(relay, claims(relay), {"x5u": "http://127.0.0.1:9/"}),
        "crit": signed(relay, claims(relay), {"crit": ["exp"]}),
        "typ JWT": signed(relay, claims(relay), {"typ": "JWT"}),
        "expired": signed(relay, claims(relay, iat=now - 60, nbf=now - 60, exp=now - 30)),
        "not yet valid": signed(relay, claims(relay, iat=now + 60, nbf=now + 60, exp=now + 90)),
        "an hour's life": signed(relay, claims(relay, exp=now + 3600)),
        "exp as text": signed(relay, claims(relay, exp=str(now + 30))),
        "exp with a fraction": signed(relay, claims(relay, exp=now + 30.5)),
        "no jti": signed(relay, claims(relay, jti=None)),
        "empty jti": signed(relay, claims(relay, jti="")),
        "empty sub": signed(relay, claims(relay, sub="")),
        "no origin": signed(relay, claims(relay, origin=None)),
        "another issuer": signed(relay, claims(relay, iss="https://evil.example")),
        "another scope": signed(relay, claims(relay, scope="publish")),
        "another version": signed(relay, claims(relay, ver=2)),
        "33 channels": signed(relay, claims(relay, channels=[f"prices.A{index}" for index in range(33)])),
        "no channels": signed(relay, claims(relay, channels=[])),
        "aud as a list": signed(relay, claims(relay, aud=[f"{relay.stream_url}/ws/prices"])),
        "a member twice": signed(relay, duplicate.encode()),
        "not an object": signed(relay, json.dumps([claims(relay)]).encode()),
        "bytes that are no UTF-8": signed(relay, b'{"sub":"\xff"}'),
        "1,000 levels": signed(relay, b"[" * 1000 + b"]" * 1000),
        "the session itself": relay.session(),
        "a session with a token's claims": relay.session(**claims(relay)),
    }
