"""The session port: who is behind this cookie?

A verifier turns a credential (the session cookie's value, or the same as a Bearer token) into a `Session`, or
into a refusal. It never sees requests, cookies' names or CSRF: those are the shells' business.
"""

from dataclasses import dataclass
from typing import Protocol

from relay.core.errors import Refusal


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


class SessionVerifier(Protocol):
    """Tells who is behind a credential."""

    async def verify(self, credential: str, *, now: float) -> Session | Refusal:
        """Return the session, or why there is none. `now` is Unix seconds.

        Raises:
            UnavailableError: if somebody else has to be asked and does not answer. The caller fails closed.
        """
        ...
