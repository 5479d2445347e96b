"""The state port: used tokens and revocations. They outlive the process, so a restart can't be used for a replay.

Every adapter gives these guarantees, and the contract tests check them:

- `claim` is atomic over all processes that share the store. Of any number of calls with one `jti`, exactly one returns
  True, even if a process crashes in between.
- When `revoke` returns, the revocation is on disk or at the other nodes. `revoked_at` returns it at once on the node
  that revoked, and within a second on the others.
- A store that can't answer raises an error. It never answers "not claimed" or "not revoked" without having looked.
"""

from typing import Protocol


class State(Protocol):
    """Single-use claims and revocations."""

    async def claim(self, jti: str, *, expires_at: float, issued_at: float | None = None) -> bool:
        """Use up the token `jti`. Returns True for the first call and False for every later one.

        `expires_at` (Unix seconds) is the token's expiry. The claim may be forgotten when it is past, and not because
        of one reading of the clock: see "Clocks" in `relay/core/README.md`. `issued_at` is the token's time of issue;
        without it the token counts as one of the longest life.

        Raises:
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
