"""JWK Sets (RFC 7517) in the forms in which providers publish them.

A set often has entries that this relay can't use: encryption keys, other curves, keys without a `kid`, a broken key.
They are left out, with the reason, and the others count (RFC 7517 §5). Only a private key refuses the whole set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from relay.core.errors import MalformedError
from relay.core.jws import VerifyKey

MAX_KEYS: Final = 500
"""Most entries of a set. Providers with many tenants publish some dozens, each one costs 30 µs to read."""

MAX_KID_CHARS: Final = 1024
"""Longest `kid`. Thumbprints have 43 characters. Names of certificates and of keys in a cloud have some hundreds."""

_PRIVATE: Final = ("d", "k", "priv")  # RFC 7518 §6; `priv` is that of the keys for ML-DSA
_PRIVATE_RSA: Final = ("p", "q", "dp", "dq", "qi", "oth")


class PrivateKeyError(MalformedError):
    """A published set holds a private or secret key, so everybody can sign with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoKey:
    """The answer that a set has no key for a token. `several`: it has more than one that may be meant."""

    detail: str
    several: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The usable keys of a set, in its order, and a text for each entry that was left out.

    The kid of a key is "" if the set gives it none.
    """

    keys: tuple[VerifyKey, ...] = ()
    skipped: tuple[str, ...] = field(default=(), repr=False)
    _named: Mapping[str, tuple[VerifyKey, ...]] = field(init=False, repr=False, compare=False)
    _all: tuple[VerifyKey, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the keys by kid once, because each session looks one up."""
        by_kid: dict[str, list[VerifyKey]] = {}
        for key in self.keys:
            by_kid.setdefault(key.kid, []).append(key)
        object.__setattr__(self, "_named", {kid: _one_or_two(keys) for kid, keys in by_kid.items()})
        object.__setattr__(self, "_all", _one_or_two(self.keys))

    def find(self, kid: str, *, fits: Callable[[VerifyKey], bool]) -> VerifyKey | NoKey:
        """Return the key that a token with this `kid` ("": none) names, or the one key that it can mean.

        A token without a kid can mean each key of the set. A token with one can mean the keys without a kid. If that is
        one key, `fits` decides: it must tell whether the token's signature is right. If it is not, the token may be of
        a key that is not in the set yet.
        """
        named = self._named.get(kid) if kid else None
        found = named or (self._named.get("", ()) if kid else self._all)
        if len(found) > 1:
            what = "this kid" if named else "its algorithm" if not kid else "its algorithm and no kid"
            return NoKey(
                detail=f"Several published keys have {what}, so it is not clear which is meant.", several=True
            )
        if found and (named or fits(found[0])):
            return found[0]
        return _UNKNOWN if kid else _UNNAMED


_UNKNOWN: Final = NoKey(detail="The backend publishes no key with the header's kid.")
_UNNAMED: Final = NoKey(detail="The header has no kid, and the backend publishes no key that fits.")


def _one_or_two(keys: Sequence[VerifyKey]) -> tuple[VerifyKey, ...]:
    """Return the first of these keys, and the first one that is not the same key."""
    other = next((key for key in keys[1:] if key.key != keys[0].key), None)
    return (*keys[:1], other) if other is not None else tuple(keys[:1])


def read_kid(value: object) -> str | None:
    """Return the `kid` of a key or of a header as a text, or None if it can't be one. null is no kid, which is "".

    A whole number counts as its digits: some servers name keys by a row of a database.
    """
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and len(value) <= MAX_KID_CHARS else None


def read_jwk_set(document: object, read: Callable[[Mapping[str, Any], str], VerifyKey | str]) -> KeySet:
    """Return the keys of a JWK Set (parsed JSON). `read` makes a key of an entry and its kid, or says why it can't.

    Members that are null count as absent, and `read` does not see them.

    Raises:
        PrivateKeyError: if an entry holds a private or secret key, whatever it is for.
        MalformedError: if it is not a JWK Set, or has too many entries.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise MalformedError(_no_set(document))
    if len(entries) > MAX_KEYS:
        raise MalformedError(f"The JWK Set has more than {MAX_KEYS} keys.")
    keys: list[VerifyKey] = []
    skipped: list[str] = []
    for number, entry in enumerate(entries, start=1):
        name, made = _read_entry(entry, number, read)
        if isinstance(made, str):
            skipped.append(f"{name}: {made}")
        elif any(made.kid == key.kid and made.key == key.key for key in keys):
            skipped.append(f"{name}: the same key was listed before")
        else:
            keys.append(made)
    return KeySet(keys=tuple(keys), skipped=tuple(skipped))


def _read_entry(
    entry: object, number: int, read: Callable[[Mapping[str, Any], str], VerifyKey | str]
) -> tuple[str, VerifyKey | str]:
    if not isinstance(entry, Mapping):
        return f"key {number}", "it is not a JSON object"
    jwk = {name: value for name, value in entry.items() if value is not None}
    if any(name in jwk for name in _PRIVATE) or (
        jwk.get("kty") == "RSA" and any(name in jwk for name in _PRIVATE_RSA)
    ):
        raise PrivateKeyError(
            "The JWK Set holds a private or secret key. It is now public: replace that key."
        )
    kid = read_kid(jwk.get("kid"))
    if kid is None:
        return f"key {number}", f"its kid is not a text of at most {MAX_KID_CHARS} characters"
    return f"key {number}" + (f" ({kid[:64]!a})" if kid else ""), read(jwk, kid)


def _no_set(document: object) -> str:
    if isinstance(document, Mapping):
        if "jwks_uri" in document:
            return "It is an OpenID configuration: use the URL that it names as jwks_uri."
        if "kty" in document:
            return 'It is one JWK, and a JWK Set is needed: {"keys": [ … ]}.'
        if any(isinstance(value, str) and "-----BEGIN" in value for value in document.values()):
            return "It is a list of PEM keys or certificates: use the provider's URL that gives a JWK Set."
    return 'A JWK Set is a JSON object with a list "keys".'
