"""The state port: what must outlive a process, so that a restart can't be used to replay a token.

Guarantees that every adapter gives, and that its contract test checks:

- `claim` is atomic over all processes that share the store: of any number of calls with one `jti`, exactly one
  returns True, also after a crash in between.
- `revoke` is on disk (or with the other nodes) when it returns; `revoked_at` sees it at once on the node that
  revoked, and within a second on the others.
- A store that can't answer raises; it never says "not claimed" or "not revoked" because it could not look.
"""

from typing import Protocol


class State(Protocol):
    """Single-use claims and revocations."""

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """Use up the token `jti`. True the first time, False ever after.

        `expires_at` (Unix seconds) says from when on the claim may be forgotten: once the token has expired.

        Raises:
            UnavailableError: if the store did not answer. Whether the token is used up is then unknown.
        """
        ...

    async def revoke(self, key: str, *, at: float, until: float) -> None:
        """Cut off what `key` stands for, a `relay.core.revocations.Target.key`: a session, a user or a token.

        `at` and `until` are Unix seconds; after `until` the entry may be forgotten. Of two revocations of one key the
        later `at` and the later `until` count.

        Raises:
            UnavailableError: if the store did not answer; nothing is then cut off.
        """
        ...

    def revoked_at(self, key: str, *, now: float) -> float | None:
        """Return when `key` was revoked, or None if it is not. Never waits: the gate asks for each connection."""
        ...
