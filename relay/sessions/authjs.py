"""Sessions of Auth.js (v5) and NextAuth (v4): encrypted JWTs in a cookie that the application sets itself.

Both derive the key from the application's secret with HKDF-SHA256, each in its own way:

    v5   A256CBC-HS512   salt: the cookie's name   info: "Auth.js Generated Encryption Key (<the cookie's name>)"
    v4   A256GCM         salt: ""                  info: "NextAuth.js Generated Encryption Key"

(auth/core `packages/core/src/jwt.ts`, next-auth v4 `src/jwt/index.ts`.) Auth.js encrypts other cookies with the same
secret: the sign-in's state and the PKCE verifier. Their salt is their own cookie's name, so they have other keys and
never pass as a session.

Auth.js mints a session's cookie again at each use. So `iat` is the time of the last use and not of the log-in, and
`jti` changes. Only the application can add an id that stays the same (in the `jwt` callback).
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from relay.core.errors import ConfigurationError, Refusal
from relay.sessions.base import Ended, NotMine, Session
from relay.sessions.claims import (
    DEFAULT_NAMES,
    LEEWAY_S,
    ClaimNames,
    check_times,
    ended,
    invalid,
    is_unix_seconds,
    refused,
    to_session,
)
from relay.sessions.cookies import MAX_SESSION_CHARS
from relay.sessions.jwe import ContentKey, Encrypted, decrypt, is_direct, parse_encrypted

MAX_CREDENTIAL_BYTES: Final = MAX_SESSION_CHARS
"""Longest session in bytes, all chunks together. Most proxies pass less."""

MIN_SECRET_BYTES: Final = 32
"""Shortest secret in bytes. The thief of a cookie can guess secrets offline. `npx auth secret` makes 44 characters."""

MAX_SECRETS: Final = 4
"""Most secrets. A rotation needs two. A v4 cookie does not name its key, so each secret is tried."""

V5: Final = "A256CBC-HS512"
V4: Final = "A256GCM"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthjsOptions:
    """The application's secrets, the newest first, and the names of its session cookies, which are the salts of v5."""

    secrets: tuple[str, ...] = field(repr=False)
    cookies: tuple[str, ...]
    ref_key: bytes = field(repr=False)
    claims: ClaimNames = DEFAULT_NAMES
    leeway_s: float = LEEWAY_S


class AuthjsVerifier:
    """A `SessionVerifier` for encrypted sessions. It makes no calls."""

    def __init__(self, options: AuthjsOptions) -> None:
        """Derive the keys.

        Raises:
            ConfigurationError: if a secret is missing or too short, or there are too many.
        """
        if not 0 < len(options.secrets) <= MAX_SECRETS:
            raise ConfigurationError(
                f"session.authjs.secrets needs 1 to {MAX_SECRETS} secrets: set the application's AUTH_SECRET first."
            )
        if min(len(secret.encode()) for secret in options.secrets) < MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"session.authjs.secrets has a secret of fewer than {MIN_SECRET_BYTES} bytes, which the thief of a "
                "cookie can guess: set a longer one here and in the application (`npx auth secret` makes one)."
            )
        self._options = options
        # derived once, at start: HKDF for each request would be wasted time
        self._v4 = [ContentKey.of(V4, _v4_key(secret)) for secret in options.secrets]
        raw = [_v5_key(secret, salt=name) for secret in options.secrets for name in options.cookies]
        self._v5 = {_thumbprint(key): ContentKey.of(V5, key) for key in raw}

    async def verify(
        self,
        credential: str,
        *,
        now: float,
        grace_s: float = 0,
        caller: str = "",  # noqa: ARG002  # the port has it
    ) -> Session | Refusal:
        """See `SessionVerifier.verify`. Refuses with `session_expired` or `session_invalid`."""
        if not is_direct(credential, (V5, V4)):
            return NotMine(detail="It is not an encrypted session of Auth.js.")
        if len(credential) > MAX_CREDENTIAL_BYTES:
            return invalid(f"It has more than {MAX_CREDENTIAL_BYTES} bytes.")
        try:
            token = parse_encrypted(credential)
            tried = (decrypt(token, key) for key in self._keys(token))
            claims = next((found for found in tried if found is not None), None)
        except ValueError as error:
            return invalid(f"It can't be read: {error}.")
        if claims is None:
            setting = "session.authjs.secrets"
            if token.kid is not None and token.kid in self._v5:
                return ended(
                    Ended.WRONG_SIGNATURE, "The key that it names does not decrypt it.", setting=setting
                )
            return invalid("No secret of session.authjs.secrets decrypts it.", setting=setting)
        names = self._options.claims
        session = to_session(
            claims,
            names,
            ref_key=self._options.ref_key,
            now=now,
            leeway_s=self._options.leeway_s,
            grace_s=grace_s,
            expires_at=self._end(claims.get("exp"), now),
        )
        if refusal := check_times(claims, now=now, leeway_s=self._options.leeway_s, grace_s=grace_s):
            return refused(refusal, claims, names, session=session)
        return session

    def _end(self, ends: object, now: float) -> int | None:
        """Return the session's own end. It is exp here: each use moves it on, and it comes if the session is not used.

        A session that is accepted within the leeway ends with the leeway: its scoped tokens must be good for something.
        """
        if not is_unix_seconds(ends):
            return None
        return int(ends if ends > now else ends + self._options.leeway_s)

    def forget(self, ref: str) -> None:
        """See `SessionVerifier.forget`. This verifier keeps nothing about sessions."""

    async def aclose(self) -> None:
        """See `SessionVerifier.aclose`. There are no connections."""

    def _keys(self, token: Encrypted) -> Sequence[ContentKey]:
        if token.encryption == V4:
            return self._v4
        if token.kid is None:
            return list(self._v5.values())
        # v5 names its key by an RFC 7638 thumbprint, so nothing is tried
        key = self._v5.get(token.kid)
        return [key] if key else []


def _v5_key(secret: str, *, salt: str) -> bytes:
    return _derive(secret, salt=salt, info=f"Auth.js Generated Encryption Key ({salt})", size=64)


def _v4_key(secret: str) -> bytes:
    return _derive(secret, salt="", info="NextAuth.js Generated Encryption Key", size=32)


def _derive(secret: str, *, salt: str, info: str, size: int) -> bytes:
    kdf = HKDF(algorithm=SHA256(), length=size, salt=salt.encode(), info=info.encode())
    return kdf.derive(secret.encode())


def _thumbprint(key: bytes) -> str:
    """Return the RFC 7638 thumbprint of a symmetric key with SHA-512, which Auth.js uses for keys of 64 bytes."""
    members = {"k": _encode(key), "kty": "oct"}
    return _encode(hashlib.sha512(json.dumps(members, separators=(",", ":")).encode()).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
