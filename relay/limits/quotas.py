"""How much each publisher may publish: messages and bytes a second, in token buckets.

Over HTTP a message beyond the quota is refused with 429 and a time to come back. On the socket nothing is refused
that was granted: the quota decides how much credit there is, and what was granted twice, to two connections of one
publisher, is owed by both before either gets more. Credit counts messages, because nobody knows their size before they
come: one grant may turn out to be many times what `byte_rate` allows in a second, and is then waited for as long.
"""

import math
from dataclasses import dataclass

from limits import parse

from relay.core.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTerms:
    """A publisher's quotas as texts like "20000/second", "" for none: of messages, and of bytes of their JSON."""

    rate: str = ""
    byte_rate: str = ""


class Quota:
    """One publisher's quota. `now` is in seconds of any one clock that does not go back."""

    def __init__(self, terms: QuotaTerms, *, now: float) -> None:
        self._messages = _bucket(terms.rate, now)
        self._bytes = _bucket(terms.byte_rate, now)

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next message may come, 0.0 for now."""
        return max(
            0.0 if self._messages is None else self._messages.wait(now, 1),
            # a message larger than all that may come at once would wait for ever: owing is allowed, more is not
            0.0 if self._bytes is None else self._bytes.wait(now, math.ulp(1)),
        )

    def window(self, most: int) -> int:
        """Return how many messages may ever come at once, at most `most`."""
        return most if self._messages is None else min(most, int(self._messages.burst))

    def charge(self, now: float, size: int) -> None:
        """Charge one message of `size` bytes, allowed or granted before."""
        if self._messages is not None:
            self._messages.charge(now, 1)
        if self._bytes is not None:
            self._bytes.charge(now, size)

    def room(self, now: float, most: int) -> int:
        """Return how many messages may come at once now, at most `most`."""
        if self.wait_s(now) > 0:
            return 0
        return most if self._messages is None else min(most, int(self._messages.level))


def _bucket(rate: str, now: float) -> TokenBucket | None:
    if not rate:
        return None
    item = parse(rate)
    return TokenBucket.full(rate=item.amount / item.get_expiry(), burst=item.amount, now=now)
