"""From a backend's claims to a `Session`: the meaning of each claim, and its checks.

It is the same for all verifiers, whether the claims come from a JWT, an encrypted cookie or the backend's /auth/me.
A claim of the wrong form refuses the session; it does not count as absent. Otherwise a bug of the backend could merge
sessions or drop roles without an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeGuard

from relay.core.errors import Reason, Refusal
from relay.sessions.base import Ended, EndedRefusal, RefusedSession, Session
from relay.sessions.session_ref import session_ref

MAX_SUBJECT_CHARS: Final = 256
"""Longest user id: it must fit into a scoped token of 4096 bytes together with 32 channels."""

MAX_SESSION_ID_CHARS: Final = 256
"""Longest session id, the same as in a revocation."""

MAX_AHEAD_S: Final = 60.0
"""Seconds by which the backend's clock may be ahead of the relay's."""

_ABSENT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNames:
    """The names of the claims. A dot leads into an object ("user.id"), unless a claim has exactly that name.

    `session` is the claim with the session's own id. Without it, all sessions of a user count as one.
    `issued_at` is the claim with the time of the log-in in Unix seconds.
    """

    subject: str = "sub"
    roles: str = "roles"
    session: str | None = "sid"
    issued_at: str = "iat"


DEFAULT_NAMES: Final = ClaimNames()
"""RFC 7519's names where it has one."""


def invalid(detail: str, *, setting: str = "") -> Refusal:
    """Return the refusal of a session that is not accepted as it is. Its cookies stay.

    `detail` must quote nothing of the token. `setting` is the setting that decides.
    """
    return Refusal(reason=Reason.SESSION_INVALID, detail=detail, setting=setting)


def ended(why: Ended, detail: str, *, setting: str = "") -> EndedRefusal:
    """Return the refusal of a session that can never be accepted again. Its cookie is cleared."""
    reason = Reason.SESSION_EXPIRED if why is Ended.EXPIRED else Reason.SESSION_INVALID
    return EndedRefusal(reason=reason, detail=detail, setting=setting, ended=why)


def is_unix_seconds(value: object) -> TypeGuard[float]:
    """Tell whether `value` is a NumericDate of RFC 7519 §2: a number, which may have a fraction."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 < value < 1 << 53
    )


def check_times(payload: Mapping[str, Any], *, now: float, leeway_s: float, grace_s: float) -> Refusal | None:
    """Check exp, nbf and iat against `now`. An expired session has a reason of its own: a refresh can repair it."""
    if "exp" not in payload:
        return invalid("It has no exp, so it would never end.")
    for name in ("exp", "nbf", "iat"):
        if not is_unix_seconds(payload.get(name, 1)):
            return invalid(f"{name} must be Unix seconds.")
    if payload["exp"] + leeway_s + grace_s <= now:
        return ended(Ended.EXPIRED, f"It expired {now - payload['exp']:.0f} s ago.")
    if max(payload.get("nbf", 0), payload.get("iat", 0)) > now + leeway_s:
        return invalid("Its nbf or iat lies in the future.")
    return None


def to_session(
    payload: Mapping[str, Any],
    names: ClaimNames,
    *,
    ref_key: bytes,
    now: float,
    expires_at: int | None = None,
    number_ids: bool = False,
) -> Session | Refusal:
    """Return the session that `payload` describes, or the reason why it is invalid.

    `number_ids` accepts whole numbers as ids, because databases have them.
    """
    subject = _id(_find(payload, names.subject), number_ids=number_ids)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        return invalid(f"{names.subject} must be a text of 1 to {MAX_SUBJECT_CHARS} characters.")
    roles = _find(payload, names.roles)
    if roles is _ABSENT:
        roles = []
    if isinstance(roles, str):
        roles = [roles]  # one role: there is no agreed separator for several roles in one text
    if not isinstance(roles, list) or not all(isinstance(role, str) and role for role in roles):
        return invalid(f"{names.roles} must be a role or a list of them.")
    session_id = _ABSENT
    if names.session is not None:
        session_id = _id(_find(payload, names.session), number_ids=number_ids)
    if session_id is not _ABSENT and not (
        isinstance(session_id, str) and 0 < len(session_id) <= MAX_SESSION_ID_CHARS
    ):
        return invalid(f"{names.session} must be a text of 1 to {MAX_SESSION_ID_CHARS} characters.")
    # without it the session counts as older than any revocation: it may be ended without need, never missed
    issued_at = _find(payload, names.issued_at)
    if issued_at is _ABSENT:
        issued_at = 0.0
    elif not is_unix_seconds(issued_at):
        return invalid(f"{names.issued_at} must be Unix seconds.")
    elif issued_at > now + MAX_AHEAD_S:  # perhaps in milliseconds: no revocation would ever be newer
        return invalid(f"{names.issued_at} lies in the future. It must be the log-in's time in Unix seconds.")
    own_id = session_id if isinstance(session_id, str) else None
    return Session(
        subject=subject,
        roles=tuple(roles),
        ref=session_ref(ref_key, session_id=own_id, subject=subject),
        own_id=own_id is not None,
        issued_at=float(issued_at),
        expires_at=expires_at,
    )


def refused(
    refusal: Refusal,
    payload: Mapping[str, Any],
    names: ClaimNames,
    *,
    session: Session | Refusal | None = None,
) -> RefusedSession:
    """Return a refusal with whose session it was: `session` if that is verified, or else what `payload` claims."""
    if not isinstance(refusal, RefusedSession):
        refusal = RefusedSession(reason=refusal.reason, detail=refusal.detail, setting=refusal.setting)
    if isinstance(session, Session):
        return replace(refusal, session=session)
    user = _find(payload, names.subject)
    return replace(refusal, claimed={"user": user} if isinstance(user, str) and user else {})


def _id(value: Any, *, number_ids: bool) -> Any:
    return str(value) if number_ids and type(value) is int else value


def _find(payload: Mapping[str, Any], name: str) -> Any:
    if name in payload:  # the names of claims may be URLs, which contain dots
        return payload[name]
    found: Any = payload
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _ABSENT
        found = found[part]
    return found
