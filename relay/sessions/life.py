"""How long a session may live, so that its revocation is never forgotten before it has ended itself.

The state store keeps a revocation for `keep_s`. This is long enough only if no session is older than `session.max_s`,
and if no token lives longer than that from its own iat. Sessions that break this are refused: otherwise a copied
cookie would work again some time after the log-out.
"""

from relay.core.errors import Reason, Refusal
from relay.sessions.base import RefusedSession, Session


def keep_s(*, max_s: float, leeway_s: float) -> float:
    """Return for how many seconds a revocation must be kept.

    A token that exists when its session is revoked may be from `leeway_s` ahead, may live `leeway_s` longer than
    `max_s`, and is accepted for `leeway_s` after its end.
    """
    return max_s + 3 * leeway_s


def kept_until(session: Session, *, leeway_s: float) -> float:
    """Return until when a log-out with this credential must be kept at least, in Unix seconds.

    A token may live longer than `keep_s`: it has no iat, or `session.max_s` was shorter when its session was logged out
    and is longer now.
    """
    return (session.token_expires_at or 0.0) + leeway_s


def outlives(session: Session, *, now: float, max_s: float, leeway_s: float) -> Refusal | None:
    """Refuse a session that lives longer than revocations are kept. Its cookies stay, because a setting decides."""
    if session.token_expires_at is not None:
        # without iat, its life up to now is not known
        life_s = session.token_expires_at - (session.token_issued_at or now)
        if life_s > max_s + leeway_s:
            return RefusedSession(
                reason=Reason.SESSION_INVALID,
                detail=f"Its token lives {life_s:.0f} s, and session.max_s is {max_s:.0f}. A log-out would be "
                "forgotten before the token ends: set session.max_s to the longest life of a session, or let tokens "
                "end earlier.",
                setting="session.max_s",
                session=session,
            )
    if session.issued_at and session.issued_at + max_s + leeway_s < now:
        return RefusedSession(
            reason=Reason.SESSION_EXPIRED,
            detail=f"Its log-in is {now - session.issued_at:.0f} s ago, and session.max_s is {max_s:.0f}.",
            setting="session.max_s",
            session=session,
        )
    return None
