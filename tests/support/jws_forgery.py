"""Tokens made by hand, as an attacker or a careless issuer would make them: nothing here is checked."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Part = Mapping[str, Any] | bytes


def b64(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: Part, payload: Part, key: Ed25519PrivateKey | bytes | None) -> str:
    """Return a compact JWS of exactly these parts: signed with Ed25519, HMAC-SHA-256 (bytes), or not at all."""
    signed = f"{b64(_raw(header))}.{b64(_raw(payload))}"
    if key is None:
        return f"{signed}."
    if isinstance(key, bytes):
        return f"{signed}.{b64(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"
    return f"{signed}.{b64(key.sign(signed.encode()))}"


def _raw(part: Part) -> bytes:
    return part if isinstance(part, bytes) else json.dumps(part).encode()


def header_of(token: str) -> dict[str, Any]:
    """Return what a token's header says."""
    return _part_of(token, 0)


def claims_of(token: str) -> dict[str, Any]:
    """Return what a token's payload says."""
    return _part_of(token, 1)


def _part_of(token: str, index: int) -> dict[str, Any]:
    part: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[index] + "=="))
    return part
