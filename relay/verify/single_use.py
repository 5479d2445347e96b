"""Single use in the service's own store: the port, and a store for a service with one process.

Every store guarantees: of any number of calls with one `jti`, exactly one returns True. A store that can't answer
raises, because "not used yet" would accept a stolen token. Each service has its own store, so that it depends on the
relay only for the public keys.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from relay.core.clock_floor import ClockFloor
from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.core.tokens import MAX_LIFETIME_S, USED_KEPT_S

MAX_TOKENS: Final = 100_000
"""Most tokens in memory, about 20 MB. It is enough for 600 calls a second: each is kept for 30 s and `USED_KEPT_S`."""


class SingleUse(Protocol):
    """The store of used tokens. `relay.verify.sqlite` has one for several processes on one machine."""

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """Use up the token `jti`. Returns True for the first call and False for all later ones.

        `expires_at` (Unix seconds) is the time after which the token may be forgotten.

        Raises:
            UnavailableError: if the store can't answer. The token is then refused.
        """
        ...


class MemorySingleUse:
    """Used tokens in this process's memory, for a service with one process and one event loop.

    Two worker processes would each accept a token once, and a restart forgets the tokens of the last 30 seconds. If
    either matters, use `relay.verify.sqlite.SqliteSingleUse`.
    """

    def __init__(
        self,
        *,
        max_tokens: int = MAX_TOKENS,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep at most `max_tokens`. If the store is full, tokens are refused until one may be forgotten.

        `clock` returns Unix seconds, and `steady` the seconds of a clock that never goes back.

        Raises:
            ConfigurationError: if `max_tokens` is less than 1.
        """
        if max_tokens < 1:
            raise ConfigurationError("max_tokens must be 1 or more.")
        self._max_tokens = max_tokens
        self._clock = clock
        self._steady = steady
        self._floor = ClockFloor(MAX_LIFETIME_S + USED_KEPT_S)
        self._forget_at: dict[str, float] = {}

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """See `SingleUse.claim`. It never awaits, so that no other call can run in between."""
        self._forget(self._floor.read(self._clock(), self._steady()))
        if jti in self._forget_at:
            return False
        if len(self._forget_at) >= self._max_tokens:
            # a token that is forgotten too early would be accepted a second time
            raise UnavailableError(
                Reason.STATE_UNAVAILABLE,
                f"The store of used tokens is full: max_tokens is {self._max_tokens}.",
            )
        self._forget_at[jti] = expires_at
        return True

    def _forget(self, now: float) -> None:
        # in the order of use, which differs from the order of expiry by a token's life: one may be kept 30 s longer
        while self._forget_at:
            oldest = next(iter(self._forget_at))
            if self._forget_at[oldest] >= now:
                return
            del self._forget_at[oldest]
