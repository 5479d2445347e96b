"""The session port: a verifier turns a credential into a `Session` or a `Refusal`.

The credential is the session cookie's value, or the same text as a Bearer token. A verifier never sees a request, a
cookie's name or CSRF headers; the HTTP routes handle those.

Several verifiers can be tried in order (`relay.sessions.chain`), so there are two kinds of refusal:

- `NotMine`: by its form alone, the credential is of another kind. The next verifier is tried.
- Any other `Refusal`: the credential is of this kind and bad. No other verifier is tried. Otherwise a forged token
  would get a second chance at a verifier with laxer checks, and each forgery would cost a call to the backend.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from relay.core.errors import Reason, Refusal


class Session(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A logged-in user. `ref` is a keyed hash that may appear in tokens and logs; the session's id may not.

    `own_id` is False if the backend gives sessions no id. `ref` then names all sessions of the user.
    All times are Unix seconds. `issued_at` is the time of the log-in, 0 if unknown. `expires_at` is the end of the
    log-in, if the backend tells it. `token_issued_at` and `token_expires_at` are those of the credential, if it says
    them: a session usually outlives it, because it is renewed.
    """

    subject: str
    roles: tuple[str, ...]
    ref: str
    own_id: bool
    issued_at: float
    expires_at: int | None = None
    token_issued_at: float | None = None
    token_expires_at: float | None = None

    def life(self, now: float) -> dict[str, int]:
        """Return what a page needs to renew the session in time: seconds that its token lives still, and lives in all.

        It is empty if the token does not tell its times.
        """
        issued, ends = self.token_issued_at, self.token_expires_at
        if issued is None or ends is None:
            return {}
        return {"session_expires_in": max(0, round(ends - now)), "session_lifetime": round(ends - issued)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMine(Refusal):
    """The credential is of a kind that this verifier does not know. Without another verifier it is a plain refusal."""

    reason: Reason = Reason.SESSION_INVALID


class Ended(StrEnum):
    """Why a session's cookie can never be accepted again. Nothing else clears a cookie (`relay.web.cookies`).

    A cookie that time, a setting or a look-up of a key could make good is not in this list: it is refused and stays.
    Otherwise a small fault becomes a log-out of everybody.
    """

    LOGGED_OUT = "logged_out"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REFRESH_REFUSED = "refresh_refused"  # by the backend, for good
    REFRESH_SPENT = "refresh_spent"
    WRONG_SIGNATURE = "wrong_signature"  # under a key that is known
    OTHER_KIND = "other_kind"  # proven by what the token says of itself


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedSession(Refusal):
    """A refusal that tells whose session was refused, for the audit log.

    `session` is verified: the credential was genuine, but it has expired or was revoked. `claimed` is what a credential
    says that nothing proves (its `user`).
    """

    session: Session | None = None
    claimed: Mapping[str, str] = field(default_factory=dict)


def identity_of(refusal: Refusal, session: Session | None = None) -> tuple[str, dict[str, Any]]:
    """Return the user, and the fields of `relay` that say whose session it was, for the audit record of a refusal.

    `session` is the request's, if it was accepted. Otherwise the refusal may know one, or what a credential claims.
    """
    claimed: Mapping[str, str] = {}
    if session is None and isinstance(refusal, RefusedSession):
        session, claimed = refusal.session, refusal.claimed
    fields: dict[str, Any] = {"claimed": dict(claimed)} if claimed else {}
    if session is None:
        return "", fields
    return session.subject, fields | {"session": {"ref": session.ref}}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRefusal(RefusedSession):
    """The refusal of a credential that can never be accepted again."""

    ended: Ended


class SessionVerifier(Protocol):
    """Turns a credential into its session.

    Guarantees: whatever a credential holds, `verify` raises nothing but `UnavailableError`. No refusal, error or repr
    quotes a credential or a key. A credential that is too long is refused before it is parsed.
    """

    async def verify(
        self, credential: str, *, now: float, grace_s: float = 0, caller: str = ""
    ) -> Session | Refusal:
        """Return the session, or the reason why there is none. `now` is Unix seconds.

        `grace_s` is for log-outs: the seconds after its end in which a credential still identifies its session. What
        else would refuse the session does not matter then, if it is certain which session it is.
        `caller` is the client's address, for budgets of calls to other servers.

        Raises:
            UnavailableError: if another server has to be asked and does not answer. The caller fails closed.
        """
        ...

    def forget(self, ref: str) -> None:
        """Forget the session with this reference, because it was logged out or revoked.

        The caller records the revocation before: a check that is running now may still return the session.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections to other servers. May be called twice, and the verifier may be used again."""
        ...
