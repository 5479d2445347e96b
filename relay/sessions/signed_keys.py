"""The keys that a backend signs its sessions with: from the settings, or from a JWK Set that it publishes.

Each key has one fixed algorithm (RFC 8725 §3.1).
"""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from relay.core.errors import ConfigurationError, MalformedError
from relay.core.jws import VerifyKey

_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2: at least the length of the hash
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_RSA_BITS = range(2048, 8193)
"""At least 2048 (RFC 7518 §3.3). Above 8192 the check of a signature takes more than a millisecond."""
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}

ALGORITHMS: Final = (*_SECRET_BYTES, *sorted(_RSA), *_CURVES, "EdDSA")
"""The algorithms that a backend may sign its sessions with."""

MAX_KEYS: Final = 64
"""Most keys in one JWK Set. Providers have two to five."""

MAX_KID_CHARS: Final = 128
"""Longest `kid`: thumbprints have 43 characters, some providers use 64."""


def check_algorithm(algorithm: str) -> None:
    """Check that sessions may be signed with `algorithm`.

    Raises:
        ConfigurationError: if not. The sentence lists the allowed algorithms.
    """
    if algorithm not in ALGORITHMS:
        raise ConfigurationError(
            f"session.signed.algorithm can't be {algorithm!r}: it is one of {', '.join(ALGORITHMS)}."
        )


def load_key(algorithm: str, key: bytes) -> VerifyKey:
    """Return the key in the settings: an HMAC secret, or a public key in PEM form.

    Raises:
        ConfigurationError: with one sentence that says what to set.
    """
    load = _load_secret if algorithm in _SECRET_BYTES else _load_public_key
    return VerifyKey(kid="", algorithm=algorithm, key=load(algorithm, key))


def read_keys(document: Mapping[str, Any], algorithm: str) -> dict[str, VerifyKey]:
    """Return the keys for `algorithm` of a JWK Set (parsed JSON) by `kid`; "" stands for a key without a kid.

    Keys for other purposes are ignored (RFC 7517 §5).

    Raises:
        MalformedError: if it is not a JWK Set, has a `kid` twice, or holds a broken or private key.
    """
    jwks = document.get("keys")
    if not isinstance(jwks, list) or not all(isinstance(jwk, dict) for jwk in jwks):
        raise MalformedError('A JWK Set is a JSON object with a list "keys" of objects.')
    if len(jwks) > MAX_KEYS:
        raise MalformedError(f"The JWK Set has more than {MAX_KEYS} keys.")
    found: dict[str, VerifyKey] = {}
    for jwk in jwks:
        if "d" in jwk or "k" in jwk:
            raise MalformedError(
                "The JWK Set holds a private or secret key. It is now public: replace that key."
            )
        if not _is_meant_for(jwk, algorithm):
            continue
        kid = jwk.get("kid", "")
        if not isinstance(kid, str) or len(kid) > MAX_KID_CHARS:
            raise MalformedError(f"A kid of the JWK Set is not a text of at most {MAX_KID_CHARS} characters.")
        if kid in found:
            raise MalformedError("Two keys of the JWK Set have the same kid, or none.")
        key = _read_jwk(jwk, algorithm)
        if _misfit(key, algorithm) is None:
            found[kid] = VerifyKey(kid=kid, algorithm=algorithm, key=key)
    return found


def _load_secret(algorithm: str, key: bytes) -> bytes:
    least = _SECRET_BYTES[algorithm]
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key or b"-")
    except InvalidKeyError:
        raise ConfigurationError(
            f"session.signed has a public key or a JWK as the secret of {algorithm}. Everybody who knows a "
            "public key could sign with it: set the algorithm of that key, such as RS256."
        ) from None
    if len(key) < least:
        raise ConfigurationError(
            f"session.signed.secret has {len(key)} bytes, and {algorithm} needs at least {least} "
            "(RFC 7518 §3.2): set a longer one here and in the backend."
        )
    return key


def _load_public_key(algorithm: str, pem: bytes) -> object:
    if b"PRIVATE KEY-----" in pem:
        raise ConfigurationError("session.signed has a private key: the relay needs only the public one.")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"session.signed needs a public key in PEM form (-----BEGIN PUBLIC KEY-----) for {algorithm}."
        ) from None
    if misfit := _misfit(key, algorithm):
        raise ConfigurationError(f"session.signed has {misfit}.")
    return key


def _misfit(key: object, algorithm: str) -> str | None:
    """Return why `key` must not check `algorithm`, or None."""
    if algorithm in _RSA:
        fits = isinstance(key, rsa.RSAPublicKey)
        if isinstance(key, rsa.RSAPublicKey) and key.key_size not in _RSA_BITS:
            return (
                f"an RSA key of {key.key_size} bits, and the relay accepts {_RSA_BITS[0]} to {_RSA_BITS[-1]} "
                "(RFC 7518 §3.3): let the backend sign with another key"
            )
    elif algorithm in _CURVES:
        fits = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES[algorithm])
    else:
        fits = isinstance(key, ed25519.Ed25519PublicKey)
    return None if fits else f"a public key that is not for {algorithm}"


def _is_meant_for(jwk: Mapping[str, Any], algorithm: str) -> bool:
    kind = "RSA" if algorithm in _RSA else "EC" if algorithm in _CURVES else "OKP"
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("kty") == kind
        and jwk.get("alg", algorithm) == algorithm
        and jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _read_jwk(jwk: dict[str, Any], algorithm: str) -> object:
    reader = RSAAlgorithm if algorithm in _RSA else ECAlgorithm if algorithm in _CURVES else OKPAlgorithm
    try:
        return reader.from_jwk(jwk)
    except (InvalidKeyError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        # PyJWT checks few of the members, so a bad one can raise any of these
        raise MalformedError("A key of the JWK Set is broken.") from None
