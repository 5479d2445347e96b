"""The sessions that recently got tokens, by user. A revocation of a user also revokes each of them.

Without this, a session that renews its access token after the revocation could pass as a new log-in: some backends
tell no time but the access token's `iat` (`relay.core.revocations`). The time of a user's newest log-in is kept too: a
backend's clock may be ahead, and the revocation must not be earlier than a log-in that came before it. It is a help and
no proof. It knows only the sessions that this process has seen since its start, and forgets the least recent users.
"""

import math
from collections import OrderedDict
from typing import Final, NamedTuple

MAX_USERS: Final = 20_000
"""Most users: as many as may be connected by default. With two sessions each they take 10 MB."""

MAX_SESSIONS: Final = 16
"""Most sessions of one user, more than a person has. A script that logs in all the time can't fill the memory."""


class _Seen(NamedTuple):
    """A session's reference, and when it was first seen here (Unix seconds)."""

    ref: str
    at: float


_NONE: Final[tuple[tuple[_Seen, ...], float]] = ((), 0.0)


class RecentSessions:
    """Session references by user, with bounds. The least recent are dropped first."""

    def __init__(self, *, max_users: int = MAX_USERS) -> None:
        self._max_users = max_users
        self._users: OrderedDict[str, tuple[tuple[_Seen, ...], float]] = OrderedDict()

    def add(self, user: str, ref: str, *, logged_in_at: float = 0.0, now: float = 0.0) -> None:
        """Add a session of a user, or make it the most recent one. `ref` is "" for a session without an id.

        `logged_in_at` is the time of its log-in in Unix seconds, 0 if unknown.
        """
        before, newest = self._users.get(user, _NONE)
        if (ref and ref != (before[-1].ref if before else "")) or logged_in_at > newest or not before:
            seen = next((one for one in before if one.ref == ref), _Seen(ref, now))
            refs = (*(one for one in before if one.ref != ref), seen)[-MAX_SESSIONS:] if ref else before
            self._users[user] = (refs, max(newest, logged_in_at))
        self._users.move_to_end(user)
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)

    def of(self, user: str, until: float = math.inf) -> tuple[str, ...]:
        """Return the recent sessions of a user that were first seen until then, the most recent last."""
        return tuple(one.ref for one in self._users.get(user, _NONE)[0] if one.at <= until)

    def newest_login(self, user: str) -> float:
        """Return the time of a user's newest log-in that was seen here, in Unix seconds, as the backend tells it."""
        return self._users.get(user, _NONE)[1]
