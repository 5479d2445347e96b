"""The keys that a backend signs its sessions with: from the settings, or from a JWK Set that it publishes.

Each key has one fixed algorithm (RFC 8725 §3.1).
"""

import base64
import contextlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from relay.core.errors import ConfigurationError, MalformedError
from relay.core.jwk_set import KeySet, read_jwk_set
from relay.core.jws import VerifyKey
from relay.sessions.key_text import NoPublicKeyError, is_public_key, read_key_text

_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2: at least the length of the hash
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_RSA_BITS = range(2048, 8193)
"""At least 2048 (RFC 7518 §3.3). Above 8192 the check of a signature takes more than a millisecond."""
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}
_EDDSA: Final = ("EdDSA", "Ed25519")
"""Two names of one algorithm: RFC 9864 gives EdDSA with an Ed25519 key a name of its own."""

ALGORITHMS: Final = (*_SECRET_BYTES, *sorted(_RSA), *_CURVES, *_EDDSA)
"""The algorithms that a backend may sign its sessions with."""


def check_algorithm(algorithm: str) -> None:
    """Check that sessions may be signed with `algorithm`.

    Raises:
        ConfigurationError: if not. The sentence lists the allowed algorithms.
    """
    if algorithm not in ALGORITHMS:
        raise ConfigurationError(
            f"session.signed.algorithm can't be {algorithm!r}: it is one of {', '.join(ALGORITHMS)}."
        )


def names_of(algorithm: str) -> tuple[str, ...]:
    """Return the names that tokens and keys may have for `algorithm`."""
    return _EDDSA if algorithm in _EDDSA else (algorithm,)


def load_key(algorithm: str, key: bytes) -> VerifyKey:
    """Return the key in the settings: an HMAC secret, or a public key in a form that `relay.sessions.key_text` reads.

    Raises:
        ConfigurationError: with one sentence that says what to set.
    """
    load = _load_secret if algorithm in _SECRET_BYTES else _load_public_key
    return _verify_key("", algorithm, load(algorithm, key))


def decode_secret(text: str) -> bytes:
    """Return the bytes of `session.signed.secret_base64`: base64 or base64url (RFC 4648), padded or not.

    Raises:
        ConfigurationError: if it is neither.
    """
    plain = text.rstrip("=")
    url = re.search(r"[-_]", plain) is not None
    try:
        if not plain or (url and re.search(r"[+/]", plain)):
            raise ValueError
        return base64.b64decode(
            plain + "=" * (-len(plain) % 4), altchars=b"-_" if url else None, validate=True
        )
    except ValueError:  # binascii.Error, or characters beyond ASCII
        raise ConfigurationError(
            "session.signed.secret_base64 is not base64. If the backend uses the text itself, set it as secret."
        ) from None


def misread_secrets(key: VerifyKey) -> tuple[tuple[str, VerifyKey], ...]:
    """Return what a shared secret would be under the other setting's name, with that name, for the log's advice."""
    if not isinstance(key.key, bytes):
        return ()
    padded = (base64.b64encode(key.key), base64.urlsafe_b64encode(key.key))
    found = [("secret", text) for one in padded for text in (one, one.rstrip(b"="))]
    with contextlib.suppress(ConfigurationError, UnicodeDecodeError):
        found.append(("secret_base64", decode_secret(key.key.decode())))
    return tuple((name, _verify_key("", key.algorithm, secret)) for name, secret in found)


def read_keys(document: Mapping[str, Any], algorithm: str) -> KeySet:
    """Return the keys for `algorithm` of a JWK Set (parsed JSON). See `relay.core.jwk_set` for what is left out.

    Raises:
        MalformedError: if it is not a JWK Set, or holds a private key (`PrivateKeyError`).
    """
    return read_jwk_set(document, partial(_read_entry, algorithm=algorithm))


def _verify_key(kid: str, algorithm: str, key: object) -> VerifyKey:
    name, *also = names_of(algorithm)
    return VerifyKey(kid=kid, algorithm=name, key=key, also=tuple(also))


def _load_secret(algorithm: str, key: bytes) -> bytes:
    least = _SECRET_BYTES[algorithm]
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key or b"-")
        is_public = is_public_key(key)
    except InvalidKeyError:
        is_public = True
    if is_public:
        raise ConfigurationError(
            f"session.signed has a public key or a JWK as the secret of {algorithm}. Everybody who knows a "
            "public key could sign with it: set the algorithm of that key, such as RS256."
        )
    if len(key) < least:
        raise ConfigurationError(
            f"session.signed.secret has {len(key)} bytes, and {algorithm} needs at least {least} "
            "(RFC 7518 §3.2): set a longer one here and in the backend."
        )
    return key


def _load_public_key(algorithm: str, text: bytes) -> object:
    try:
        key = read_key_text(text, read_jwk=partial(_read_settings_jwk, algorithm=algorithm))
    except NoPublicKeyError as error:
        raise ConfigurationError(
            f"session.signed has {error}. It needs a public key for {algorithm}, such as a PEM text (BEGIN PUBLIC KEY)."
        ) from None
    if misfit := _misfit(key, algorithm):
        raise ConfigurationError(f"session.signed has {misfit}.")
    return key


def _read_settings_jwk(jwk: Mapping[str, Any], algorithm: str) -> object:
    try:
        found = read_keys({"keys": [jwk]}, algorithm)
    except MalformedError:
        raise NoPublicKeyError(
            "a JWK with a private or secret key: the relay needs only the public one"
        ) from None
    if not found.keys:
        raise NoPublicKeyError(f"a JWK that can't be used ({found.skipped[0].partition(': ')[2]})")
    return found.keys[0].key


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


def _read_entry(jwk: Mapping[str, Any], kid: str, *, algorithm: str) -> VerifyKey | str:
    if other := _other_purpose(jwk, algorithm):
        return other
    reader = RSAAlgorithm if algorithm in _RSA else ECAlgorithm if algorithm in _CURVES else OKPAlgorithm
    try:
        key = reader.from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        # PyJWT checks few of the members, so a bad one can raise any of these
        missing = [name for name in _MEMBERS[str(jwk["kty"])] if name not in jwk]
        return f"it has no {' and no '.join(missing)}" if missing else "its key can't be read"
    misfit = _misfit(key, algorithm)
    return f"it is {misfit}" if misfit else _verify_key(kid, algorithm, key)


_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


def _other_purpose(jwk: Mapping[str, Any], algorithm: str) -> str | None:
    """Return for what else than signatures with `algorithm` a key is, or None."""
    kind = "RSA" if algorithm in _RSA else "EC" if algorithm in _CURVES else "OKP"
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("kty") != kind:
        return f"its kty is not {kind}"
    if jwk.get("alg", algorithm) not in names_of(algorithm):
        return f"its alg is not {algorithm}"
    if jwk.get("use", "sig") != "sig":
        return "its use is not sig"
    if not isinstance(operations, list) or "verify" not in operations:
        return "its key_ops are not a list with verify"
    return None
