"""From a backend's claims to a `Session`: the meaning of each claim, and its checks.

It is the same for all verifiers, whether the claims come from a JWT, an encrypted cookie or the backend's /auth/me.

- A claim that is null counts as absent: many libraries write null for a value that they don't have.
- A whole number is an id like its digits as a text, because databases have numbers.
- Any other claim of the wrong form refuses the session. Otherwise a bug of the backend could merge sessions or drop
  roles without an error.

A log-out only has to find out which session it is (`grace_s` of the verifiers). For it, a claim that the session's name
does not depend on may have any form, and a session from the future counts.
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

LEEWAY_S: Final = 60.0
"""Seconds by which the clocks of the backend and the relay may differ, unless the settings say something else."""

MILLISECONDS: Final = 1e11
"""From here on a time must be in milliseconds. In seconds this is the year 5138, in milliseconds it was 1973."""


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
    if type(value) is int:  # as nearly all are
        return 0 < value < MILLISECONDS
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 < value < MILLISECONDS
    )


def time_problem(name: str, value: object) -> str:
    """Return what is wrong with the time in the claim `name`; "" if it is Unix seconds, null or absent."""
    if value is None or is_unix_seconds(value):
        return ""
    if isinstance(value, int | float) and value >= MILLISECONDS:
        return f"{name} is too large for a time in Unix seconds (in milliseconds?)."
    return f"{name} must be a time in Unix seconds, as a number."


def check_times(payload: Mapping[str, Any], *, now: float, leeway_s: float, grace_s: float) -> Refusal | None:
    """Check exp, nbf and iat against `now`. An expired session has a reason of its own: a refresh can repair it.

    With `grace_s` only the end is checked, for a log-out.
    """
    ends = payload.get("exp")
    if is_unix_seconds(ends) and ends + leeway_s + grace_s <= now:
        return ended(Ended.EXPIRED, f"It expired {now - ends:.0f} s ago.", setting="session.leeway_s")
    if grace_s:
        return None
    if ends is None:
        return invalid("It has no exp, so it would never end.")
    if problem := time_problem("exp", ends):
        return invalid(problem)
    for name in ("nbf", "iat"):
        begins = payload.get(name)
        if problem := time_problem(name, begins):
            return invalid(problem)
        if begins is not None and begins > now + leeway_s:
            return _from_the_future(name, begins - now, leeway_s)
    return None


def _from_the_future(name: str, ahead_s: float, leeway_s: float) -> Refusal:
    return invalid(
        f"{name} lies {ahead_s:.0f} s in the future, and session.leeway_s allows {leeway_s:g}. Compare the clocks of "
        "the backend and the relay.",
        setting="session.leeway_s",
    )


def to_session(
    payload: Mapping[str, Any],
    names: ClaimNames,
    *,
    ref_key: bytes,
    now: float,
    leeway_s: float,
    grace_s: float = 0,
    expires_at: int | None = None,
) -> Session | Refusal:
    """Return the session that `payload` describes, or the reason why it is invalid.

    With `grace_s` only the claims that tell which session it is are checked, for a log-out.
    """
    setting = "session.claims"
    subject = id_text(member(payload, names.subject))
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        return invalid(
            f"{names.subject} must be a text of 1 to {MAX_SUBJECT_CHARS} characters, or a whole number.",
            setting=setting,
        )
    session_id = None if names.session is None else id_text(member(payload, names.session))
    if session_id is not None and not (
        isinstance(session_id, str) and 0 < len(session_id) <= MAX_SESSION_ID_CHARS
    ):
        return invalid(
            f"{names.session} must be a text of 1 to {MAX_SESSION_ID_CHARS} characters, or a whole number.",
            setting=setting,
        )
    roles = _roles(member(payload, names.roles))
    if roles is None and not grace_s:
        return invalid(f"{names.roles} must be a role or a list of them.", setting=setting)
    issued_at = member(payload, names.issued_at)
    if not grace_s:
        if problem := time_problem(names.issued_at, issued_at):
            return invalid(problem, setting=setting)
        if issued_at is not None and issued_at > now + leeway_s:  # no revocation would ever be newer
            return _from_the_future(names.issued_at, issued_at - now, leeway_s)
    return Session(
        subject=subject,
        roles=roles or (),
        ref=session_ref(ref_key, session_id=session_id, subject=subject),
        own_id=session_id is not None,
        # without it the session counts as older than any revocation: it may be ended without need, never missed
        issued_at=_time(issued_at) or 0.0,
        expires_at=expires_at,
        token_issued_at=_time(payload.get("iat")),
        token_expires_at=_time(payload.get("exp")),
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
    user = id_text(member(payload, names.subject))
    return replace(refusal, claimed={"user": user} if isinstance(user, str) and user else {})


def id_text(value: Any) -> Any:
    """Return an id as a text if it is a whole number. Some encoders write large ones as floats (1e+06)."""
    if type(value) is float and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    return str(value) if type(value) is int else value


def _roles(value: Any) -> tuple[str, ...] | None:
    """Return the roles, or None if they have no known form."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = [value]  # one role: there is no agreed separator for several roles in one text
    if not isinstance(value, list) or not all(isinstance(role, str) and role for role in value):
        return None
    return tuple(value)


def _time(value: object) -> float | None:
    return float(value) if is_unix_seconds(value) else None


def member(payload: Mapping[str, Any], name: str) -> Any:
    """Return the member with this name or at a path like "user.id", or None. It may be null, which is the same."""
    if name in payload:  # the names of claims may be URLs, which contain dots
        return payload[name]
    found: Any = payload
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found
