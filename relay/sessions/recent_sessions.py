"""The sessions that recently got tokens, by user. A revocation of a user also revokes each of them.

Without this, a session that renews its access token after the revocation could pass as a new log-in: some backends
tell no time but the access token's `iat` (`relay.core.revocations`). It is a help and no proof. It knows only the
sessions that this process has seen since its start, and forgets the least recent users.
"""

from collections import OrderedDict
from typing import Final

MAX_USERS: Final = 20_000
"""Most users: as many as may be connected by default. With two sessions each they take 10 MB."""

MAX_SESSIONS: Final = 16
"""Most sessions of one user, more than a person has. A script that logs in all the time can't fill the memory."""


class RecentSessions:
    """Session references by user, with bounds. The least recent are dropped first."""

    def __init__(self, *, max_users: int = MAX_USERS) -> None:
        self._max_users = max_users
        self._users: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def add(self, user: str, ref: str) -> None:
        """Add a session of a user, or make it the most recent one."""
        before = self._users.get(user, ())
        if ref not in before[-1:]:
            self._users[user] = (*(one for one in before if one != ref), ref)[-MAX_SESSIONS:]
        self._users.move_to_end(user)
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)

    def of(self, user: str) -> tuple[str, ...]:
        """Return the recent sessions of a user, the most recent last."""
        return self._users.get(user, ())
