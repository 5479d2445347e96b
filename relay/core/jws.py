"""Compact JWS (RFC 7515 §7.1), parsed strictly. PyJWT checks the signature.

PyJWT's own `decode` reads the wall clock. It accepts duplicate JSON names, any size and a trailing `=`, so one token
has several spellings. Here a token has exactly one spelling: three unpadded base64url parts in canonical form, which
contain strict JSON (`relay.core.strict_json`).

A key verifies with one algorithm only. The header's `alg` is compared with the key's algorithm and never chooses one.
This prevents algorithm confusion (RFC 8725 §3.1).
"""

import binascii
import contextlib
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec
from jwt import PyJWS
from jwt.algorithms import Algorithm
from jwt.exceptions import PyJWTError

from relay.core import strict_json
from relay.core.errors import Reason, Refusal

_jws = PyJWS()
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

MADE: Final = 16_384
"""Signatures that a signer remembers at least, with 100 bytes each. At 1,500 tokens a second that is ten seconds; a
client needs one to connect."""

_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")

_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""The allowed last characters of an incomplete group, by its length. Others have bits that no decoder reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyKey:
    """A key that checks signatures. `key` is what PyJWT accepts for `algorithm`: a public key or a secret.

    PyJWT prepares the key once, because it searches every secret for PEM text. If the key does not fit its algorithm,
    every signature is wrong. `also` has further names of the same algorithm. `signer` is the one with the other half of
    the key, if this process has it.
    """

    kid: str
    algorithm: str
    key: Any = field(repr=False)
    also: tuple[str, ...] = ()
    signer: "Signer | None" = field(repr=False, compare=False, default=None)
    _ready: tuple[Algorithm, Any] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        with contextlib.suppress(PyJWTError, NotImplementedError, TypeError, ValueError):
            algorithm = _jws.get_algorithm_by_name(self.algorithm)
            object.__setattr__(self, "_ready", (algorithm, algorithm.prepare_key(self.key)))

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Tell whether `signature` was made with this key for `signed`."""
        if self.signer is not None and self.signer.makes(signed, signature):
            return True
        if self._ready is None:
            return False
        algorithm, key = self._ready
        return algorithm.verify(signed, key, signature)


class Compact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The parts of a token. Only its form has been checked.

    `header` is the same object for the next tokens with the same header, which are nearly all of one key.
    """

    text: str
    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    signature: bytes

    def __repr__(self) -> str:
        return f"Compact(header={self.header!r}, payload={self.payload!r})"  # the rest is a credential


def decode_part(part: str) -> bytes:
    """Decode unpadded base64url (RFC 7515 §2) in its canonical spelling.

    Raises:
        ValueError: with a short reason, for anything else.
    """
    if not _PART.fullmatch(part):
        raise ValueError("not unpadded base64url")
    over = len(part) % 4
    if over == 1:
        raise ValueError("not base64url")
    if over and part[-1] not in _LAST[over]:
        raise ValueError("not canonical base64url")
    # as base64.urlsafe_b64decode does, in half of its time
    return binascii.a2b_base64(part.encode("ascii").translate(_FROM_URL) + b"=" * (-len(part) % 4))


def parse_compact(text: str, *, max_bytes: int) -> Compact | Refusal:
    """Split a compact JWS into its parts. The signature is not checked."""
    if len(text) > max_bytes:
        return Refusal(reason=Reason.TOKEN_TOO_LARGE, detail=f"The token has more than {max_bytes} bytes.")
    parts = text.split(".")
    if len(parts) != 3:
        return Refusal(
            reason=Reason.TOKEN_MALFORMED,
            detail=f"A token must have three parts between dots. This one has {len(parts)}.",
        )
    try:
        header = _parse_header(parts[0])
    except ValueError as error:
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail=f"The header can't be read: {error}.")
    try:
        payload = strict_json.parse_object(decode_part(parts[1]))
    except ValueError as error:
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail=f"The payload can't be read: {error}.")
    try:
        signature = decode_part(parts[2])
    except ValueError as error:
        return Refusal(reason=Reason.TOKEN_MALFORMED, detail=f"The signature can't be read: {error}.")
    return Compact(text=text, header=header, payload=payload, signature=signature)


@lru_cache(maxsize=64)  # all tokens of one key have the same header
def _parse_header(part: str) -> Mapping[str, Any]:
    return strict_json.parse_object(decode_part(part))


def check_signature(token: Compact, key: VerifyKey) -> Refusal | None:
    """Check the signature with `key`. The header must name its algorithm. None: the signature is right.

    The caller has chosen `key`, so the header's kid is not looked at.
    """
    if token.header.get("alg") not in (key.algorithm, *key.also):
        return Refusal(
            reason=Reason.TOKEN_HEADER,
            detail=f"The header says alg {repr(token.header.get('alg'))[:40]}, the key is for {key.algorithm}.",
        )
    if "crit" in token.header or "b64" in token.header:
        # A token with an unknown extension must be refused (RFC 7515 §4.1.11). `b64` changes what is signed (RFC 7797).
        return Refusal(
            reason=Reason.TOKEN_HEADER, detail="The header has crit or b64. No extension is supported."
        )
    signed = token.text.rpartition(".")[0].encode("ascii")
    # Only the algorithm of PyJWT is used: `decode_complete` would parse the token again, less strictly.
    return None if key.verifies(signed, token.signature) else Refusal(reason=Reason.TOKEN_SIGNATURE)


class Signer:
    """Makes compact JWS with one key. `headers` is the protected header without `alg`, the same for all of them.

    PyJWT encodes the header and prepares the key once. Its `encode` does both for each token, which costs 15 µs.

    A signature that the key makes for the same bytes needs no check, which is a sixth of the CPU of a connection
    (117 µs for Ed25519). A signer remembers its last signatures. Those of other processes with the key, like other
    workers and nodes, it makes again for 36 µs: with EdDSA the same bytes have one signature (RFC 8032 §5.1.6).
    """

    def __init__(self, key: Any, *, algorithm: str, headers: dict[str, Any]) -> None:
        self._algorithm = _jws.get_algorithm_by_name(algorithm)
        self._key = self._algorithm.prepare_key(key)
        self._repeats = algorithm == "EdDSA"
        header, _, _ = _jws.encode(b"", key, algorithm=algorithm, headers=headers).partition(".")
        self._begin = header.encode("ascii") + b"."
        self._made: set[bytes] = set()
        self._made_before: set[bytes] = set()

    def sign(self, payload: bytes) -> str:
        """Return the compact JWS of `payload`."""
        signed = self._begin + encode_part(payload)
        signature = self._algorithm.sign(signed, self._key)
        if len(self._made) >= MADE:
            self._made_before, self._made = self._made, set()
        self._made.add(_digest(signed, signature))
        return (signed + b"." + encode_part(signature)).decode("ascii")

    def makes(self, signed: bytes, signature: bytes) -> bool:
        """Tell whether the key makes this signature for `signed`. False says nothing: check the signature then.

        What was remembered is forgotten: a token is used once, so a second look would only need memory.
        """
        digest = _digest(signed, signature)
        for made in (self._made, self._made_before):
            if digest in made:
                made.remove(digest)
                return True
        # in constant time: how many bytes are right must not show, or a signature could be guessed byte by byte
        return self._repeats and hmac.compare_digest(self._algorithm.sign(signed, self._key), signature)


def _digest(signed: bytes, signature: bytes) -> bytes:
    # the signatures of one signer have one length, so nothing else has the same bytes
    return hashlib.sha256(signed + signature).digest()


def encode_part(data: bytes) -> bytes:
    """Encode as unpadded base64url (RFC 7515 §2)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")
