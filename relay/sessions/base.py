"""The session port: who is behind this cookie?

A verifier turns a credential (the session cookie's value, or the same as a Bearer token) into a `Session`, or
into a refusal. It never sees requests, cookies' names or CSRF: those are the shells' business.

There are two ways to refuse, because several verifiers can stand one behind the other. `NotMine` says that the
credential is of another kind, by its form alone: the next verifier is asked. Any other `Refusal` says "mine, and
bad": nobody else is asked, or a token with a forged signature would get a second chance somewhere laxer, and each
forgery would be a call to the backend.
"""

from dataclasses import dataclass
from typing import Protocol

from relay.core.errors import Reason, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A logged-in user. `ref` is a keyed hash that may appear in tokens and logs; the session's id never does.

    `own_id` False says that the backend gives sessions no id, so that `ref` stands for all of the user's.
    `issued_at` and `expires_at` are Unix seconds; `expires_at` is the log-in's end, where the backend tells it.
    """

    subject: str
    roles: tuple[str, ...]
    ref: str
    own_id: bool
    issued_at: float
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMine(Refusal):
    """The credential is of a kind that this verifier does not know. By itself it is a refusal like any other."""

    reason: Reason = Reason.SESSION_INVALID


class SessionVerifier(Protocol):
    """Tells who is behind a credential.

    Guarantees: no credential, whatever is in it, makes `verify` raise anything but `UnavailableError`; no refusal,
    error or repr quotes a credential or a key; what is too long is refused before it is looked at.
    """

    async def verify(self, credential: str, *, now: float, grace_s: float = 0) -> Session | Refusal:
        """Return the session, or why there is none. `now` is Unix seconds.

        `grace_s` is how long after its end a credential still tells whose it was, for who logs out with it.

        Raises:
            UnavailableError: if somebody else has to be asked and does not answer. The caller fails closed.
        """
        ...

    def forget(self, ref: str) -> None:
        """Remember nothing of the session with this reference, because it was logged out or revoked.

        The caller records the revocation first: an answer that is under way now may still come out as a session.
        """
        ...

    async def aclose(self) -> None:
        """Close connections to others. May be called twice."""
        ...
