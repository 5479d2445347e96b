"""When to come back, and when not to: what the end of one connection means for the next.

The close code's range is the protocol's policy (from 4500 on stop), and a few codes below it say that the next
attempt would end in the same way. Everything else is tried again, after a wait that the relay may have named.
"""

import asyncio

from relay.client.backoff import Backoff
from relay.client.connecting import Retry
from relay.client.errors import HandshakeError, StreamClosedError, TokenError
from relay.client.events import Closed
from relay.client.link import Ended
from relay.core.closes import CloseCode

GOOD_S = 10.0
"""A connection that lived this long was a good one: the back-off starts anew."""

MAX_REFUSALS = 5
"""Fresh tokens refused in a row: by then it is no race any more, but a setting that a person must mend."""

_STOP = frozenset(
    {CloseCode.UNSUPPORTED_DATA, CloseCode.POLICY_VIOLATION, CloseCode.TOO_LARGE, CloseCode.NOT_ALLOWED}
)
_STOP_FROM = 4500
_RESTARTS = frozenset({CloseCode.GOING_AWAY, CloseCode.RESTART})


def is_final(code: int) -> bool:
    """Tell whether the next connection would end with this close code as well."""
    return code in _STOP or code >= _STOP_FROM


class Reconnecting:
    """The attempts of one subscriber. `is_renewable`: its tokens come from a function, one an attempt."""

    def __init__(self, backoff: Backoff, *, is_renewable: bool) -> None:
        self._backoff = backoff
        self._is_renewable = is_renewable
        self._told_s: float | None = None
        self._refusals = 0
        self.at = 0.0
        """When the next attempt is due, on the event loop's clock."""

    def told(self, delay_ms: int) -> None:
        """The relay restarts soon and named a time to come back."""
        self._told_s = delay_ms / 1000

    def welcomed(self) -> None:
        """An attempt went well."""
        self._refusals = 0

    def without_token(self, error: TokenError) -> Closed:
        """Return what happens after the issuer gave no token.

        Raises:
            TokenError: if asking again is no use.
        """
        if not error.retryable:
            raise error
        return self._later(error.message, status=error.status, told_s=error.retry_after_s)

    def refused(self, retry: Retry) -> Closed:
        """Return what happens after a refused handshake.

        Raises:
            HandshakeError: if the token was refused and another one can't be had, or was refused too often.
        """
        if retry.status == 401:
            self._refusals += 1
            if not self._is_renewable or self._refusals >= MAX_REFUSALS:
                raise HandshakeError(
                    "invalid_token", f"The stream refused the token: {retry.reason}", status=401
                )
        return self._later(retry.reason, status=retry.status, told_s=retry.told_s)

    def ended(self, ended: Ended, *, lasted_s: float) -> Closed:
        """Return what happens after a connection that was welcome for `lasted_s` seconds.

        Raises:
            StreamClosedError: if it ended for good.
        """
        told_s, self._told_s = self._told_s, None
        if lasted_s >= GOOD_S:
            self._backoff.reset()
        shown = f"{ended.code} {ended.reason}".strip()
        if is_final(ended.code):
            raise StreamClosedError(
                ended.code, ended.reason, f"The relay closed the stream for good: {shown}."
            )
        if not self._is_renewable:
            raise StreamClosedError(
                ended.code,
                ended.reason,
                f"The stream ended ({shown}) and its token is used up: a new one opens the next.",
            )
        return self._later(ended.reason, code=ended.code, told_s=told_s if ended.code in _RESTARTS else None)

    def _later(
        self,
        reason: str,
        *,
        code: int = CloseCode.ABNORMAL,
        status: int | None = None,
        told_s: float | None = None,
    ) -> Closed:
        wait_s = self._backoff.next(told_s=told_s)
        self.at = asyncio.get_running_loop().time() + wait_s
        return Closed(code=code, reason=reason, retry_in_s=wait_s, status=status)
