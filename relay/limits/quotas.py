"""The quotas of publishers: messages and bytes a second, in token buckets.

Over HTTP a message beyond the quota is refused with 429 and Retry-After. On the socket the quota decides how much
credit a connection gets, and a message with credit is never refused. Two connections of one publisher may both get
credit from the same quota. Then neither gets more until the whole amount is paid back.

Credit counts messages, because their size is not known before they come. So the messages of one credit may have many
times the bytes that `byte_rate` allows in a second; the next credit then comes that much later.
"""

import math
from dataclasses import dataclass

from limits import parse

from relay.core.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTerms:
    """A publisher's quotas of messages and of bytes of their JSON, as texts like "20000/second"; "" for no quota."""

    rate: str = ""
    byte_rate: str = ""


class Quota:
    """One publisher's quota. `now` is in seconds of a clock that never goes back, always the same one."""

    def __init__(self, terms: QuotaTerms, *, now: float) -> None:
        self.terms = terms
        self._messages = _bucket(terms.rate, now)
        self._bytes = _bucket(terms.byte_rate, now)
        self.used = (0, 0)
        """Messages and bytes that other nodes do not know of yet, if there are any. See `share`."""

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next message may come, 0.0 for now."""
        return max(
            0.0 if self._messages is None else self._messages.wait(now, 1),
            # A message may be larger than the bucket, so that it could never wait for enough bytes. It is allowed as
            # soon as nothing is owed, and the bucket then owes its bytes.
            0.0 if self._bytes is None else self._bytes.wait(now, math.ulp(1)),
        )

    def window(self, most: int) -> int:
        """Return how many messages may come at once when the bucket is full, at most `most`."""
        return most if self._messages is None else min(most, int(self._messages.burst))

    def charge(self, now: float, size: int) -> None:
        """Charge one message of `size` bytes, whether it was allowed now or had credit."""
        if self._messages is None and self._bytes is None:
            return
        self.used = (self.used[0] + 1, self.used[1] + size)
        if self._messages is not None:
            self._messages.charge(now, 1)
        if self._bytes is not None:
            self._bytes.charge(now, size)

    @property
    def rates(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The tokens a second and the most at once, of messages and of bytes. 0 twice: no quota."""
        buckets = (self._messages, self._bytes)
        messages, bytes_ = ((0.0, 0.0) if one is None else (one.rate, one.burst) for one in buckets)
        return messages, bytes_

    def share(self, now: float, told: tuple[int, int], levels: tuple[float, float]) -> None:
        """Take over the levels that all nodes share. `told` is what they have been told of `used`."""
        self.used = (self.used[0] - told[0], self.used[1] - told[1])
        for bucket, used, level in zip((self._messages, self._bytes), self.used, levels, strict=True):
            if bucket is not None:
                bucket.level, bucket.at = level - used, now

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
