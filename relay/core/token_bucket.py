"""A token bucket without a clock, which limits the rate of one peer."""

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Allows `rate` calls a second in the long run and `burst` at once. `now` is in seconds of any one clock."""

    rate: float
    burst: float
    level: float
    at: float

    @classmethod
    def full(cls, *, rate: float, burst: float, now: float) -> "TokenBucket":
        """Return a bucket that allows a whole burst at once."""
        return cls(rate, burst, burst, now)

    def acquire(self, now: float) -> float:
        """Acquire one token. Returns 0.0 if there was one, or else the seconds until there is one."""
        wait = self.wait(now, 1)
        if not wait:
            self.level -= 1
        return wait

    def wait(self, now: float, amount: float) -> float:
        """Return the seconds until there are `amount` tokens. 0.0: there are as many now."""
        # A wall clock may be set back. The peer must not wait for the hours that the clock lost.
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now
        return max(0.0, (amount - self.level) / self.rate)

    def charge(self, now: float, amount: float) -> None:
        """Remove `amount` tokens. The level may go below zero; `acquire` then waits until it is above zero again."""
        self.wait(now, amount)
        self.level -= amount
