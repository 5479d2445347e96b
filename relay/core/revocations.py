"""What can be cut off, and whom a revocation hits: a session, all of a user's sessions, one token, or a key's tokens.

A revocation says when it was made. What matters then is the age of the *log-in*, and neither a scoped token nor an
access token tells it by its `iat`: both are made anew all the time, for a log-in that may be days old. So a scoped
token carries `session_iat`, the log-in's time as the session verifier knows it (`session.claims.issued_at`), and
a revocation hits

- a token, by its `jti` or by the `kid` of the key that signed it: always;
- a session by its reference, or a user: every token that was issued up to then, and every token of a log-in from
  before then. A log-in whose time nobody knows counts as from before: cut off too often, never too seldom. The
  second in which the revocation was made counts as before it, because tokens count in whole seconds.

So a new log-in lifts a revocation by user, and a token that a slow issuer hands out afterwards does not. The issuer
applies the same rule to the session itself, where a session that has an id of its own is never let in again.

It is only as good as the claim that it reads. `iat` of an access token that a refresh renews is not the log-in's
time, but that of the refresh; a backend that refreshes should say `auth_time` (OpenID Connect Core §2). Where it
does not, a revocation by user still ends for good each session that is connected or has asked for tokens here lately
(`relay.stream.revoker`); one that nobody has seen here yet passes for a new log-in once its token was renewed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from relay.core.tokens import Claims

RevokedAt = Callable[[str], float | None]
"""Returns when (Unix seconds) what a `Target.key` names was revoked, or None."""


class Kind(StrEnum):
    """What a revocation names."""

    SESSION = "session"
    USER = "user"
    TOKEN = "token"  # noqa: S105  # no password
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is cut off: `name` is a session's reference, a user's id, a token's `jti` or a key's `kid`."""

    kind: Kind
    name: str

    @property
    def key(self) -> str:
        """Under which the state store keeps it. References are hex, so that no other kind can look like one."""
        return _KEYS[self.kind] + self.name


_KEYS = {Kind.SESSION: "", Kind.USER: "sub:", Kind.TOKEN: "jti:", Kind.KEY: "kid:"}


def token_is_cut_off(claims: Claims, revoked_at: RevokedAt) -> bool:
    """Tell whether a token, or the connection that it opened, was cut off."""
    if revoked_at(_KEYS[Kind.TOKEN] + claims.jti) is not None:
        return True
    logged_in = claims.session_issued_at or 0
    for key in (claims.session_ref, _KEYS[Kind.USER] + claims.subject):
        at = revoked_at(key)
        if at is not None and min(claims.issued_at, logged_in) <= at:
            return True
    return False


def key_is_cut_off(kid: str, revoked_at: RevokedAt) -> bool:
    """Tell whether all tokens of a key were cut off."""
    return revoked_at(_KEYS[Kind.KEY] + kid) is not None


def session_is_cut_off(
    *, ref: str, subject: str, issued_at: float, own_id: bool, revoked_at: RevokedAt
) -> bool:
    """Tell whether a session was cut off. `issued_at` is the log-in's time in Unix seconds, 0 for unknown.

    Without an id of its own (`own_id` False) a session is known by its user only, and a later log-in is another one.
    """
    at = revoked_at(ref)
    if at is not None and (own_id or issued_at <= at):
        return True
    at = revoked_at(_KEYS[Kind.USER] + subject)
    return at is not None and issued_at <= at
