"""The state port: used tokens and revocations. They outlive the process, so a restart can't be used for a replay.

Every adapter gives these guarantees, and the contract tests check them:

- `claim` is atomic over all processes that share the store. Of any number of calls with one `jti`, exactly one returns
  True, even if a process crashes in between. A call that finds no place in its session uses nothing up.
- When `revoke` returns, the revocation is on disk or at the other nodes. `revoked_at` returns it at once on the node
  that revoked, and within a second on the others.
- A store that can't answer raises an error. It never answers "not claimed" or "not revoked" without having looked.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place among the open connections of a session, on all nodes. `session` is the session's reference.

    A session has at most `most` places. With `replaces`, one more takes the place of the oldest connection.
    """

    session: str
    connection: str
    most: int
    replaces: bool


class NoPlaceError(Exception):
    """The session has as many connections as it may have. Its token was not used up."""


class Places(Protocol):
    """The places that the connections of this node have, if they are counted over several nodes."""

    def leave(self, session: str, connection: str) -> None:
        """Give a place back, without waiting. To give back one that is not taken is fine."""
        ...


class State(Protocol):
    """Single-use claims and revocations."""

    async def claim(
        self, jti: str, *, expires_at: float, issued_at: float | None = None, place: Place | None = None
    ) -> bool:
        """Use up the token `jti`. Returns True for the first call and False for every later one.

        `expires_at` (Unix seconds) is the token's expiry. The claim may be forgotten when it is past, and not because
        of one reading of the clock: see "Clocks" in `relay/core/README.md`. `issued_at` is the token's time of issue;
        without it the token counts as one of the longest life. `place` is taken in the same step, if the store is one
        of several nodes; for a store of one process the registry of the connections counts them. A connection that has
        its place keeps it.

        Raises:
            NoPlaceError: if there is no place. The token can be used later.
            UnavailableError: if the store did not answer. It is then unknown whether the token is used up. Or if the
                store has lost claims since the token was issued. The client may try again with a new token.
        """
        ...

    async def revoke(self, key: str, *, at: float, until: float) -> None:
        """Revoke `key`, a `relay.core.revocations.Target.key`: a session, a user, a token or a signing key.

        `at` and `until` are Unix seconds. The revocation may be forgotten when `until` is past and the seconds from
        `at` to `until` have really gone by. If a key is revoked twice, the later `at` and the later `until` count.

        Raises:
            UnavailableError: if the store did not answer. It is then unknown whether the key is revoked; to revoke it
                again is safe. A store of several nodes ends the connections of this node all the same.
        """
        ...

    def revoked_at(self, key: str) -> float | None:
        """Return the time at which `key` was revoked, or None. Never waits: the gate calls it for each connection.

        The answer does not depend on the time: a revocation counts until it is forgotten.
        """
        ...
