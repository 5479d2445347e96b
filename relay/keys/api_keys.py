"""API keys of publishers and operators: `name.secret`. The settings hold the SHA-256 hash of the secret.

A plain hash is enough: the secret is 256 random bits and not a password, so it can't be guessed. A slow hash would
be too slow for a publisher of 20,000 messages a second. One name may have several hashes, so that a key can be
replaced without an interruption.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum

from relay.core.bearer import KEY_NAME
from relay.core.errors import ConfigurationError

MAX_PRESENTED_CHARS = 256
"""Longest key that is checked. Keys made by the relay have at most 32 + 1 + 43 characters."""

_SECRET_BYTES = 32
_NO_HASHES = ("0" * 64,)
"""Compared in place of an unknown name's hashes, so that the time does not show which names exist. No input with this
hash is known."""


class May(StrEnum):
    """The permissions of an operator's key."""

    READ = "read"
    REVOKE = "revoke"
    RESET = "reset"


def new_bearer_key(name: str) -> tuple[str, str]:
    """Return a new key for `name` (`name.secret`), and the hash of its secret for the settings.

    Raises:
        ConfigurationError: if `name` can't be a table's name in relay.toml.
    """
    if not KEY_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:80]!r} can't be a name: use 1 to 32 lower-case letters, digits, - and _, such as pricing."
        )
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return f"{name}.{secret}", hash_secret(secret)


def hash_secret(secret: str) -> str:
    """Return the hash of a secret for the settings: SHA-256 of its text, as 64 hex digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def check_bearer(presented: str, known: Mapping[str, Sequence[str]]) -> str | None:
    """Return the name of the key `presented`, or None. `known` has the hashes of each name's valid secrets.

    A wrong secret and an unknown name take the same time, and so does each of a name's hashes.
    """
    if len(presented) > MAX_PRESENTED_CHARS:
        return None
    name, _, secret = presented.partition(".")
    digest = hash_secret(secret)
    matches = 0
    for entry in known.get(name) or _NO_HASHES:
        matches |= _same(digest, entry.lower())
    return name if matches and secret else None


def _same(one: str, other: str) -> bool:
    # as bytes, because compare_digest raises for text that is not ASCII
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))
