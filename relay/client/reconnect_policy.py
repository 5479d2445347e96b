"""When to connect again after a connection or an attempt has ended, and when to stop.

The close code decides. Codes from 4500 on are final by the protocol, and so are four lower codes after which the next
attempt would end in the same way. After all others a new attempt follows; the relay may name the wait before it.
"""

import asyncio

from relay.client.backoff import Backoff, bounded_ms
from relay.client.connection import Ended
from relay.client.errors import HandshakeError, StreamClosedError, TokenError
from relay.client.events import Closed
from relay.client.handshake import Retry
from relay.core.closes import CloseCode

GOOD_S = 10.0
"""After a connection that lasted this long, the back-off starts from its first wait again."""

MAX_REFUSALS = 5
"""New tokens that were refused in a row. A race explains one or two; five are a wrong setting."""

_STOP = frozenset(
    {CloseCode.UNSUPPORTED_DATA, CloseCode.POLICY_VIOLATION, CloseCode.TOO_LARGE, CloseCode.NOT_ALLOWED}
)
_STOP_FROM = 4500
_RESTARTS = frozenset({CloseCode.GOING_AWAY, CloseCode.RESTART})


def is_final(code: int) -> bool:
    """Tell whether a next connection would end with this close code again."""
    return code in _STOP or code >= _STOP_FROM


class ReconnectPolicy:
    """The attempts of one subscriber. `is_renewable`: a function supplies a new token for each attempt."""

    def __init__(self, backoff: Backoff, *, is_renewable: bool) -> None:
        self._backoff = backoff
        self._is_renewable = is_renewable
        self._announced_s: float | None = None
        self._refusals = 0
        self.at = 0.0
        """When the next attempt is due, on the event loop's clock."""

    def restart_announced(self, delay_ms: int) -> None:
        """Note the wait that the relay named before its restart."""
        self._announced_s = bounded_ms(delay_ms)

    def welcomed(self) -> None:
        """Note that an attempt succeeded."""
        self._refusals = 0

    def without_token(self, error: TokenError) -> Closed:
        """Schedule the next attempt after the issuer gave no token.

        Raises:
            TokenError: if the issuer would refuse again.
        """
        if not error.retryable:
            raise error
        return self._later(error.message, status=error.status, retry_after_s=error.retry_after_s)

    def refused(self, retry: Retry) -> Closed:
        """Schedule the next attempt after a refused handshake.

        Raises:
            HandshakeError: if the token was refused, and there is no other one or too many were refused.
        """
        if retry.refuses_token:
            self._refusals += 1
            if not self._is_renewable or self._refusals >= MAX_REFUSALS:
                raise HandshakeError(
                    "invalid_token", f"The stream refused the token: {retry.reason}", status=401
                )
        return self._later(retry.reason, status=retry.status, retry_after_s=retry.retry_after_s)

    def ended(self, ended: Ended, *, lasted_s: float) -> Closed:
        """Schedule the next attempt after a connection that lasted `lasted_s` seconds after its welcome.

        Raises:
            StreamClosedError: if the close code is final, or there is no new token.
        """
        retry_after_s, self._announced_s = self._announced_s, None
        if lasted_s >= GOOD_S:
            self._backoff.reset()
        shown = f"{ended.code} {ended.reason}".strip()
        if is_final(ended.code):
            raise StreamClosedError(
                ended.code,
                ended.reason,
                f"The relay closed the stream with a final code: {shown}. Reconnecting would end in the same way.",
            )
        if not self._is_renewable:
            raise StreamClosedError(
                ended.code,
                ended.reason,
                f"The stream ended ({shown}). A token opens one connection: pass a function that fetches new ones.",
            )
        return self._later(
            ended.reason, code=ended.code, retry_after_s=retry_after_s if ended.code in _RESTARTS else None
        )

    def _later(
        self,
        reason: str,
        *,
        code: int = CloseCode.ABNORMAL,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> Closed:
        wait_s = self._backoff.next(told_s=retry_after_s)
        self.at = asyncio.get_running_loop().time() + wait_s
        return Closed(code=code, reason=reason, retry_in_s=wait_s, status=status)
