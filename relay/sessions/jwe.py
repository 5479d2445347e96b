"""Decryption of a compact JWE (RFC 7516) with a directly shared key: `dir` and one content encryption.

The form and the header are checked here before the library sees them: five canonical parts, no duplicate member, no
unexpected member. The cryptography is joserfc's. It has types and a permissive licence, and needs only the
`cryptography` package, which the relay uses anyway (jwcrypto is LGPL and has no types).
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry, decrypt_compact
from joserfc.jwk import OctKey

from relay.core import strict_json

_HEADER_MEMBERS: Final = frozenset({"alg", "enc", "kid", "typ", "cty"})
_MAX_HEADER_CHARS: Final = 512
"""Longest header. That of Auth.js has 168 characters: two names, and a thumbprint of 86 characters as kid."""

_PART = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted:
    """A token of five parts whose header has been read. Nothing is decrypted yet."""

    text: str = field(repr=False)
    encryption: str
    kid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentKey:
    """A key for one content encryption."""

    encryption: str
    key: OctKey = field(repr=False)

    @classmethod
    def of(cls, encryption: str, raw: bytes) -> "ContentKey":
        """Return the key with these bytes."""
        return cls(encryption=encryption, key=OctKey.import_key(raw))


def is_direct(text: str, encryptions: Sequence[str]) -> bool:
    """Tell, by its header alone, whether `text` is a compact JWE with `dir` and one of `encryptions`."""
    try:
        header = _read_header(text)
    except ValueError:
        return False
    return header.get("alg") == "dir" and header.get("enc") in encryptions


def parse_encrypted(text: str) -> Encrypted:
    """Check the form of a compact JWE without decrypting it.

    Raises:
        ValueError: with a short reason that quotes nothing of it.
    """
    header = _read_header(text)
    if unexpected := header.keys() - _HEADER_MEMBERS:
        # zip: some kilobytes could become gigabytes, and no issuer of sessions compresses them
        compressed = "zip" in unexpected
        raise ValueError("it is compressed" if compressed else "its header has members that are not expected")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("its kid is not a text")
    for part in text.split("."):
        _decode(part)
    return Encrypted(text=text, encryption=str(header.get("enc")), kid=kid)


def decrypt(token: Encrypted, key: ContentKey) -> dict[str, Any] | None:
    """Return the claims of `token`, or None if `key` does not decrypt it.

    Raises:
        ValueError: if it is decrypted and holds no JSON object.
    """
    registry = JWERegistry(algorithms=["dir", key.encryption])
    try:
        plaintext = decrypt_compact(token.text, key.key, registry=registry).plaintext
    except (JoseError, ValueError):  # ValueError: the cipher has no IV or text of this length
        return None
    return strict_json.parse_object(plaintext or b"")


def _read_header(text: str) -> Mapping[str, Any]:
    head, _, rest = text.partition(".")
    if rest.count(".") != 3:
        raise ValueError("it does not have five parts")
    if len(head) > _MAX_HEADER_CHARS:
        raise ValueError(f"its header has more than {_MAX_HEADER_CHARS} characters")
    return strict_json.parse_object(_decode(head))


def _decode(part: str) -> bytes:
    """Decode canonical, unpadded base64url, so that a token has exactly one spelling."""
    if not _PART.fullmatch(part):
        raise ValueError("it is not base64url")
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise ValueError("it is not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise ValueError("it is not canonical base64url")
    return data
