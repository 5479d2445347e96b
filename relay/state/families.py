"""The port for refresh families: what the relay keeps of a log-in, so that its refresh tokens can be renewed once only.

A family is one log-in of one browser. It begins with the refresh token of the log-in, and each refresh adds a token.
The store has hashes of the tokens (`relay.bff.refresh` makes them), never a token: `sealed` is encrypted.

Every adapter gives these guarantees, and the contract tests check them:

- Each call is one transaction, over all processes that share the store. Nothing is answered from memory.
- At no time do two callers hold the lease of one token. Nobody gets one after `complete` has returned True or `spend`
  has returned, unless the backend does not rotate.
- After `end` has returned, no token of the family is redeemed, and no `complete` of a call that runs returns True.
- A family is kept until the end of its newest refresh cookie, whether it was ended or not.
- A store that can't answer raises `UnavailableError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

KEPT_TOKENS = 32
"""Tokens that are known of a family. A browser never has an older one, unless it was asleep through 32 refreshes of
another browser with a copy of its cookie."""
SPENT_AFTER_S = 60.0
"""Seconds for which a token is still answered with its successor after the browser has shown that it has one. Requests
of other tabs that were on their way with the old cookie arrive within this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Whose log-in it is. `session` is the reference of its newest access token's session.

    `logged_in_at` is in Unix seconds. A refresh does not change it. It is 0 if the store has not seen the log-in.
    """

    session: str
    subject: str
    logged_in_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeem:
    """The caller holds the lease: it may call the backend. `family` is None if the store has not seen the log-in."""

    lease: bytes
    family: Family | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Another caller holds the lease. Ask again, at the latest after `for_s`."""

    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The token was redeemed already: `sealed` has the newest tokens of the family, sealed under `sealed_for`.

    `address` redeemed the newest.
    """

    sealed: bytes = field(repr=False)
    sealed_for: bytes
    newest: bytes
    family: Family
    address: str


class Over(StrEnum):
    """Why a token is never redeemed again."""

    SPENT = "spent"
    ENDED = "ended"
    UNUSABLE = "unusable"
    """The backend has redeemed it, less than `SPENT_AFTER_S` ago, with an answer that can't be used."""
    LOST = "lost"
    """The same, longer ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The token must not be redeemed."""

    over: Over
    family: Family


@dataclass(frozen=True, slots=True)
class Young:
    """The token and its access token are so new that nothing is gained by other ones."""


Taken = Redeem | Wait | Succeeded | Refused | Young


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The result of a refresh. `successor` is the new token's hash, the old one's if the backend does not rotate.

    `sealed` holds the new tokens. `family` says whose they are, None if that could not be found out yet. `keep_s` is
    the life of the refresh cookie.
    """

    successor: bytes
    sealed: bytes = field(repr=False)
    family: Family | None
    address: str
    keep_s: float


class Families(Protocol):
    """Refresh families. `token` is always a hash of a refresh token, of 16 bytes."""

    async def begin(self, token: bytes, family: Family, *, address: str, keep_s: float) -> None:
        """Store the family of a log-in."""
        ...

    async def find(self, token: bytes) -> Family | None:
        """Return the family of a token, also of one that was ended. None: the token is unknown."""
        ...

    async def show(self, token: bytes) -> None:
        """Note that the browser has shown this token. Its predecessors are spent 60 s after that."""
        ...

    async def take(
        self,
        token: bytes,
        *,
        lease_s: float,
        unconfirmed_s: float,
        keep_s: float,
        is_shown: bool = True,
        young_s: float = 0,
    ) -> Taken:
        """Ask for the lease of a token, to call the backend with it within `lease_s`.

        `unconfirmed_s` bounds for how long a token is answered with a successor that the browser never showed.
        `keep_s` is the life of a family that is not known yet. With `is_shown` False the token came from a successor
        of this store, and not from a browser. The newest token of a family is not redeemed while the refresh
        that made it is younger than `young_s`.
        """
        ...

    async def complete(self, token: bytes, lease: bytes, renewal: Renewal) -> bool:
        """Store the result of the call. False: the family was ended, or the lease had run out. Throw it away then."""
        ...

    async def release(self, token: bytes, lease: bytes) -> None:
        """Give the lease back, because the backend gave no answer. The next caller may call it.

        A token that the store did not know before is forgotten.
        """
        ...

    async def spend(self, token: bytes, lease: bytes) -> None:
        """Note that the backend has redeemed the token with an answer that can't be used: it is never sent again."""
        ...

    async def end(self, token: bytes) -> Sequence[str]:
        """End the family of a token. Return the references of its sessions, the newest first.

        A family whose log-in the store has not seen is forgotten: anybody can make such tokens up.
        """
        ...

    async def end_sessions(self, *, session: str = "", subject: str = "") -> Sequence[str]:
        """End the families of a session, or of a user, that are stored now. Return the references of their sessions."""
        ...
