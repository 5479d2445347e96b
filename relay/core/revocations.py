"""Revocations: of a session, of all sessions of a user, of one token, or of all tokens of a key.

A revocation has the time at which it was made. For a session or a user, the time of the log-in decides. The `iat` of a
scoped token or of an access token does not tell this time, because both are issued again and again for one
log-in. A scoped token therefore has the claim `session_iat`: the time of the log-in, as the session verifier knows it
(`session.claims.issued_at`). These are the rules:

- A revocation of a `jti` or of a `kid` always applies to the token or to the key's tokens.
- A revocation of a session reference or of a user applies to every token that was issued up to its time, and to every
  token of a log-in up to its time. An unknown log-in time counts as earlier: some tokens are then refused that could be
  accepted, but never the other way round. Tokens have whole seconds, so the second of the revocation counts as earlier.

A new log-in is therefore not affected by an earlier revocation of its user. A token that a slow issuer sends after the
revocation is affected. The issuer applies the same rule to the session itself. A session with an id of its own is never
accepted again.

The rule depends on the claim that it reads. If a backend refreshes access tokens, their `iat` is the time of the
refresh and not of the log-in. Such a backend should send `auth_time` (OpenID Connect Core §2). If it does not, a
revocation of a user still ends all sessions that are connected or have requested tokens here lately
(`relay.stream.revoker`). A session that was never seen here counts as a new log-in after its token was refreshed.

Both times are of different clocks: the log-in's of the backend's, the revocation's of the relay's. If the backend's
clock is ahead, a log-in that came just before a revocation of its user looks newer. The revocation therefore has at
least the time of the user's newest log-in that was seen here. A log-in that was never seen here passes if it came
before the revocation by less than the clocks differ, which is at most `session.leeway_s`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from relay.core.tokens import Claims

RevokedAt = Callable[[str], float | None]
"""Returns the time (Unix seconds) at which a `Target.key` was revoked, or None."""


class Kind(StrEnum):
    """What kind of thing is revoked."""

    SESSION = "session"
    USER = "user"
    TOKEN = "token"  # noqa: S105  # no password
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is revoked. `name` is a session's reference, a user's id, a token's `jti` or a key's `kid`."""

    kind: Kind
    name: str

    @property
    def key(self) -> str:
        """The key in the state store. Session references are hex, so no other kind can look like one."""
        return _KEYS[self.kind] + self.name

    @classmethod
    def of_key(cls, key: str) -> "Target":
        """Return the target of a key."""
        kind = next((kind for kind, begin in _KEYS.items() if begin and key.startswith(begin)), Kind.SESSION)
        return cls(kind=kind, name=key.removeprefix(_KEYS[kind]))


_KEYS = {Kind.SESSION: "", Kind.USER: "sub:", Kind.TOKEN: "jti:", Kind.KEY: "kid:"}


def token_is_revoked(claims: Claims, revoked_at: RevokedAt) -> bool:
    """Tell whether a token is revoked, or the session or user that it belongs to."""
    if revoked_at(_KEYS[Kind.TOKEN] + claims.jti) is not None:
        return True
    logged_in = claims.session_issued_at or 0
    for key in (claims.session_ref, _KEYS[Kind.USER] + claims.subject):
        at = revoked_at(key)
        if at is not None and min(claims.issued_at, logged_in) <= at:
            return True
    return False


def key_is_revoked(kid: str, revoked_at: RevokedAt) -> bool:
    """Tell whether all tokens of a key are revoked."""
    return revoked_at(_KEYS[Kind.KEY] + kid) is not None


def session_is_revoked(
    *, ref: str, subject: str, issued_at: float, own_id: bool, revoked_at: RevokedAt
) -> bool:
    """Tell whether a session is revoked. `issued_at` is the time of the log-in in Unix seconds, 0 if unknown.

    If a session has no id of its own (`own_id` False), its reference stands for the user: a later log-in is another
    session.
    """
    at = revoked_at(ref)
    if at is not None and (own_id or issued_at <= at):
        return True
    at = revoked_at(_KEYS[Kind.USER] + subject)
    return at is not None and issued_at <= at
