"""Public keys as JSON Web Keys (RFC 7517, RFC 8037): the issuer serves them, and other processes read them."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.core.errors import MalformedError
from relay.core.jwk_set import MAX_KID_CHARS, KeySet, read_jwk_set
from relay.core.jws import VerifyKey
from relay.core.tokens import ALGORITHM

_X_BYTES = 32


def key_id(public: Ed25519PublicKey) -> str:
    """Return the `kid` of a key: the first 64 bits of its RFC 7638 thumbprint, as 16 hex digits.

    It is made from the key itself, so that one kid can't name two different keys. It is in hex, because it is part of
    file names (some file systems ignore case) and of command lines (base64url may start with -).
    """
    members = {"crv": "Ed25519", "kty": "OKP", "x": _encode(public.public_bytes_raw())}
    return hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).hexdigest()[:16]


def verify_key(public: Ed25519PublicKey) -> VerifyKey:
    """Return `public` as a key that checks scoped tokens, named by its `key_id`."""
    return VerifyKey(kid=key_id(public), algorithm=ALGORITHM, key=public)


def to_jwk(key: VerifyKey) -> dict[str, Any]:
    """Return one public key as a JWK.

    It is built from the raw public bytes. Removing the private members of a larger JWK could forget one.

    Raises:
        TypeError: if the key is not an Ed25519 public key. Such a bug of the caller must not leak a private key.
    """
    if not isinstance(key.key, Ed25519PublicKey):
        raise TypeError(f"only Ed25519 public keys are published, this is {type(key.key).__name__}")
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": _encode(key.key.public_bytes_raw()),
        "kid": key.kid,
        "alg": ALGORITHM,
        "use": "sig",
    }


def to_jwks(keys: Mapping[str, VerifyKey]) -> dict[str, Any]:
    """Return the JWK Set of `keys`, with public members only."""
    return {"keys": [to_jwk(key) for key in keys.values()]}


def from_jwk(jwk: object) -> VerifyKey | None:
    """Read one JWK strictly. Returns None if it is not a key for EdDSA signatures with Ed25519.

    Raises:
        MalformedError: if it is such a key and is broken, or if it holds a private member.
    """
    if not isinstance(jwk, Mapping):
        raise MalformedError("A JWK is a JSON object.")
    if "d" in jwk or "k" in jwk:
        raise MalformedError("The JWK holds a private or secret key. It is now public: replace that key.")
    if not _is_ours(jwk):
        return None
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
        raise MalformedError(f"An Ed25519 JWK needs a kid of 1 to {MAX_KID_CHARS} characters.")
    return VerifyKey(kid=kid, algorithm=ALGORITHM, key=_public_key(jwk.get("x")))


def read_published(document: object) -> KeySet:
    """Return the keys of a JWK Set (parsed JSON) that check scoped tokens. See `relay.core.jwk_set`.

    Raises:
        MalformedError: if it is not a JWK Set, or holds a private key.
    """
    return read_jwk_set(document, _read_entry)


def from_jwks(document: object) -> dict[str, VerifyKey]:
    """Return the keys of a JWK Set (parsed JSON) that check scoped tokens, by `kid`. There may be none.

    Raises:
        MalformedError: if it is not a JWK Set, has a `kid` twice, or holds a private key.
    """
    found: dict[str, VerifyKey] = {}
    for key in read_published(document).keys:
        if key.kid in found:
            raise MalformedError("Two keys of the JWK Set have the same kid.")
        found[key.kid] = key
    return found


def _read_entry(jwk: Mapping[str, Any], kid: str) -> VerifyKey | str:
    if not _is_ours(jwk):
        return "it is not an Ed25519 key for signatures"
    if not kid:
        return "it has no kid"
    try:
        return VerifyKey(kid=kid, algorithm=ALGORITHM, key=_public_key(jwk.get("x")))
    except MalformedError as error:
        return error.detail.removesuffix(".")


def _is_ours(jwk: Mapping[str, Any]) -> bool:
    return (
        jwk.get("kty") == "OKP"
        and jwk.get("crv") == "Ed25519"
        and jwk.get("alg", ALGORITHM) in (ALGORITHM, "Ed25519")  # RFC 9864 gives it a second name
        and jwk.get("use", "sig") == "sig"
    )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _public_key(x: object) -> Ed25519PublicKey:
    try:
        raw = base64.urlsafe_b64decode(f"{x}=") if isinstance(x, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    # compared with its own encoding, so that a key has exactly one spelling
    if len(raw) != _X_BYTES or _encode(raw) != x:
        raise MalformedError(f"The x of an Ed25519 JWK is {_X_BYTES} bytes as unpadded base64url.")
    return Ed25519PublicKey.from_public_bytes(raw)
