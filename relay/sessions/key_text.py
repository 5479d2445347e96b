"""A public key as people paste it into settings, and what else they paste there by mistake.

Taken is what can mean one thing only: PEM, also with its line breaks lost or written out as `\\n`, a certificate, the
bare base64 of either or its DER, an OpenSSH key, one JWK. The key counts and nothing else: a certificate's dates and
names do not, because the settings' owner has chosen it.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_ssh_public_key,
)

_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")  # files that a shell on Windows has written
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)


class NoPublicKeyError(ValueError):
    """A text holds no public key. The message says what it is instead, as a part of a sentence."""


_PRIVATE: Final = "a private key: the relay needs only the public one"


def read_key_text(data: bytes, *, read_jwk: Callable[[Mapping[str, Any]], object]) -> object:
    """Return the public key in `data`: a text, or the DER of a file. `read_jwk` reads a JWK, or raises as this does.

    Raises:
        NoPublicKeyError: if there is none, or there is a private key.
    """
    try:
        text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8")
    except UnicodeDecodeError:
        return _read_der(data)
    text = text.strip().removeprefix("\ufeff").replace("\\r", "").replace("\\n", "\n")
    if "PRIVATE KEY" in text:
        raise NoPublicKeyError(_PRIVATE)
    if "-----BEGIN" in text:
        return _read_pem(text)
    if text.startswith(("ssh-", "ecdsa-")):
        return _read(lambda: load_ssh_public_key(text.encode()), "an OpenSSH key that can't be read")
    if text.startswith("{"):
        return read_jwk(_read_json(text))
    if re.match(r"https?://", text):
        raise NoPublicKeyError("a URL: set jwks_url for a JWK Set")
    der = _decode(text)
    if der is not None:
        return _read_der(der)
    if re.fullmatch(r"[./~\w-]+\.\w{2,4}", text):
        raise NoPublicKeyError("a path: set public_key_file for a file")
    raise NoPublicKeyError("a text that is no key" if text else "an empty text")


def is_public_key(data: bytes) -> bool:
    """Tell whether everybody may know `data`, because it is a public key or a certificate."""
    try:
        read_key_text(data, read_jwk=lambda _: None)
    except NoPublicKeyError:
        return False
    return True


def _read_pem(text: str) -> object:
    found = _PEM.search(text)  # the first one: a chain of certificates begins with the key's own
    if found is None:
        raise NoPublicKeyError("a PEM text without its last line (-----END …-----)")
    label, body = found[1], found[2]
    der = _decode(body)
    if der is None:
        raise NoPublicKeyError(f"a PEM text ({label}) whose base64 is broken")
    return _read_der(der)


def _read_der(der: bytes) -> object:
    for load in (load_der_public_key, _certificate_key):
        try:
            return load(der)
        except _UNREADABLE:
            continue
    try:
        load_der_private_key(der, password=None)
    except _UNREADABLE:
        raise NoPublicKeyError("base64 or DER that holds no public key and no certificate") from None
    raise NoPublicKeyError(_PRIVATE)


def _certificate_key(der: bytes) -> object:
    return x509.load_der_x509_certificate(der).public_key()


def _decode(text: str) -> bytes | None:
    """Return the bytes of base64, with any white space and with or without padding."""
    plain = re.sub(r"\s", "", text).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True) or None
    except ValueError:  # binascii.Error, or characters beyond ASCII
        return None


def _read_json(text: str) -> Mapping[str, Any]:
    found = _read(lambda: json.loads(text), "a JSON text that can't be read")
    if not isinstance(found, Mapping):
        raise NoPublicKeyError("a JSON text that is no JWK")
    if "keys" in found:
        raise NoPublicKeyError("a JWK Set: give one key of it, or its URL as jwks_url")
    return found


def _read(load: Callable[[], Any], what: str) -> Any:
    try:
        return load()
    except (*_UNREADABLE, RecursionError):
        raise NoPublicKeyError(what) from None
