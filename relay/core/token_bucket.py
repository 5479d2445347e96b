"""A token bucket without a clock: how fast one peer may go."""

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Allows `rate` takes a second on the long run and `burst` at once. `now` is in seconds, of any one clock."""

    rate: float
    burst: float
    level: float
    at: float

    @classmethod
    def full(cls, *, rate: float, burst: float, now: float) -> "TokenBucket":
        """Return a bucket that allows a whole burst at once."""
        return cls(rate, burst, burst, now)

    def take(self, now: float) -> float:
        """Take one. Returns 0.0 if it was allowed, else the seconds to wait until it would be."""
        wait = self.wait(now, 1)
        if not wait:
            self.level -= 1
        return wait

    def wait(self, now: float, amount: float) -> float:
        """Return the seconds until `amount` may be taken, 0.0 for now."""
        # a wall clock that is set back must not charge everybody for the hours that it took away
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now
        return max(0.0, (amount - self.level) / self.rate)

    def charge(self, now: float, amount: float) -> None:
        """Take `amount` whether it is there or not: what is owed must come in before anything may be taken again."""
        self.wait(now, amount)
        self.level -= amount
