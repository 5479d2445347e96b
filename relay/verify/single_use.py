"""Single use in a store of the service's own: the port, and the store for a service of one process.

Guarantees that every store gives: of any number of calls with one `jti`, exactly one returns True; and a store that
can't answer raises, because "not used yet" would let a stolen token in. The store is the service's own, so that it
depends on the relay for its keys only.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.core.tokens import USED_KEPT_S

MAX_TOKENS: Final = 100_000
"""Tokens remembered at once, about 20 MB: over 600 calls a second, each kept for 30 s and `USED_KEPT_S`."""


class SingleUse(Protocol):
    """Tokens that were used. `relay.verify.sqlite` has the one for several processes on one machine."""

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """Use up the token `jti`. True the first time, False ever after.

        `expires_at` (Unix seconds) says from when on the claim may be forgotten.

        Raises:
            UnavailableError: if that could not be found out; the token is then refused.
        """
        ...


class MemorySingleUse:
    """Used tokens in this process's memory, for a service of one process and one event loop.

    Two worker processes would each take a token once, and a restart forgets the last 30 seconds: use
    `relay.verify.sqlite.SqliteSingleUse` where either matters.
    """

    def __init__(self, *, max_tokens: int = MAX_TOKENS, clock: Callable[[], float] = time.time) -> None:
        """Bounded by `max_tokens`: beyond it tokens are refused as long as none may be forgotten.

        Raises:
            ConfigurationError: if `max_tokens` is less than 1.
        """
        if max_tokens < 1:
            raise ConfigurationError("max_tokens must be 1 or more.")
        self._max_tokens = max_tokens
        self._clock = clock
        self._forget_at: dict[str, float] = {}

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """See `SingleUse.claim`. Never waits, so that no other call comes in between."""
        self._forget(self._clock())
        if jti in self._forget_at:
            return False
        if len(self._forget_at) >= self._max_tokens:
            # to forget a token early would let it in a second time
            raise UnavailableError(
                Reason.STATE_UNAVAILABLE, f"{self._max_tokens} used tokens are remembered, as many as may be."
            )
        self._forget_at[jti] = expires_at + USED_KEPT_S
        return True

    def _forget(self, now: float) -> None:
        # in the order of use, which is that of expiry but for a token's life: one may be kept 30 s longer
        while self._forget_at:
            oldest = next(iter(self._forget_at))
            if self._forget_at[oldest] >= now:
                return
            del self._forget_at[oldest]
