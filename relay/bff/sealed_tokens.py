"""Tokens as they lie in the state store: encrypted, so that the file alone gives nothing (AES-GCM, NIST SP 800-38D).

The key is derived from `session.ref_key` (HKDF, RFC 5869). The hash of the old refresh token is authenticated with the
tokens, so that one row of the store can't be put in the place of another.
"""

import json
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from relay.bff.backend import Tokens
from relay.core.errors import Reason, UnavailableError

_NONCE_BYTES = 12


class Seal:
    """Closes and opens tokens."""

    def __init__(self, ref_key: bytes) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"refresh-successor")
        self._cipher = AESGCM(derived.derive(ref_key))

    def close(self, tokens: Tokens, key: bytes) -> bytes:
        """Encrypt tokens that answer the refresh token with the hash `key`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, json.dumps(tokens.tokens).encode(), key)

    def open(self, sealed: bytes, key: bytes) -> Tokens:
        """Decrypt what `close` has returned for the same `key`.

        Raises:
            UnavailableError: if it was made under another `session.ref_key`, or was changed.
        """
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key)
        except InvalidTag:
            raise UnavailableError(
                Reason.STATE_UNAVAILABLE,
                "The state file holds tokens that were sealed under another session.ref_key.",
            ) from None
        access, refresh = json.loads(plain)
        return Tokens(access_token=access, refresh_token=refresh)
