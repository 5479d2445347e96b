"""The sessions that asked for tokens lately, by user: a revocation of a user ends each of them for good.

Without this, a session whose access token is renewed after the revocation would pass for a new log-in where the
backend tells no other time than the token's `iat` (`relay.core.revocations`). It is a help and no proof: it knows
what this process has seen since it started, and forgets the users who were here longest ago.
"""

from collections import OrderedDict
from typing import Final

MAX_USERS: Final = 20_000
"""Users remembered: as many as may be connected by default. With two sessions each they take 10 MB."""

MAX_SESSIONS: Final = 16
"""Sessions remembered of one user. More than a person has; a script that logs in for ever must not fill the memory."""


class SeenSessions:
    """Session references by user, bounded; whoever came last is forgotten last."""

    def __init__(self, *, max_users: int = MAX_USERS) -> None:
        self._max_users = max_users
        self._users: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def note(self, user: str, ref: str) -> None:
        """Remember that a user was here with this session."""
        before = self._users.get(user, ())
        if ref not in before[-1:]:
            self._users[user] = (*(one for one in before if one != ref), ref)[-MAX_SESSIONS:]
        self._users.move_to_end(user)
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)

    def of(self, user: str) -> tuple[str, ...]:
        """Return the sessions that a user was seen with."""
        return self._users.get(user, ())
