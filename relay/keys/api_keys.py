"""Bearer keys of publishers and operators: `name.secret`, kept as a SHA-256 hash of the secret.

A plain hash is enough because the secret is 256 random bits and nobody's password: there is nothing to guess,
and a slow hash would cost a publisher of 20,000 messages a second its rate. Several hashes for one name let a
key be exchanged without a gap.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum

from relay.core.errors import ConfigurationError

MAX_PRESENTED_CHARS = 256
"""Longest key looked at. Ours have at most 32 + 1 + 43 characters."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_SECRET_BYTES = 32
_NOBODY = ("0" * 64,)
"""Stands in for an unknown name's hashes, so that names can't be found out by time. No known input has it."""


class May(StrEnum):
    """What an operator's key may open."""

    READ = "read"
    REVOKE = "revoke"
    RESET = "reset"


def new_bearer_key(name: str) -> tuple[str, str]:
    """Return a new key for `name` as its holder presents it (`name.secret`), and the hash for the settings.

    Raises:
        ConfigurationError: if `name` can't be a table's name in relay.toml.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:80]!r} can't be a name: use 1 to 32 small letters, digits, - and _, such as pricing."
        )
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return f"{name}.{secret}", hash_secret(secret)


def hash_secret(secret: str) -> str:
    """Return what the settings hold for a secret: the SHA-256 of its text, as 64 hex digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def check_bearer(presented: str, known: Mapping[str, Sequence[str]]) -> str | None:
    """Return whose key `presented` is, or None. `known` has the hashes of each name's valid secrets.

    Takes the same time for a wrong secret, an unknown name and, within a name, whichever hash is right.
    """
    if len(presented) > MAX_PRESENTED_CHARS:
        return None
    name, _, secret = presented.partition(".")
    digest = hash_secret(secret)
    matches = 0
    for entry in known.get(name) or _NOBODY:
        matches |= _same(digest, entry.lower())
    return name if matches and secret else None


def _same(one: str, other: str) -> bool:
    # as bytes: compare_digest raises for texts that are not ASCII
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))
