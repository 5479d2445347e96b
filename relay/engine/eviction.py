"""Whether a server may evict keys: then it forgets used tokens without a word, and they could be used again.

The relay does not start on such a server (`probe.py`). Somebody may change it later, so each node asks again and again.
"""

from collections.abc import Mapping, Sequence

from relay.core.quantities import counted

ASK_EVERY_S = 2.0
NO_EVICTION = "noeviction"


class Eviction:
    """What a server said last of its `maxmemory-policy`."""

    def __init__(self) -> None:
        self.policy = NO_EVICTION
        self.evicted = 0
        """Keys that were evicted while the policy allowed it."""
        self._evicted_before: int | None = None  # when the policy was right, or first asked for

    def told(self, info: bytes) -> None:
        """Take the answer to `INFO memory stats`."""
        fields = info_fields(info)
        self.policy = policy_of(fields)
        evicted = int(fields.get("evicted_keys", 0))
        is_restarted = self._evicted_before is not None and evicted < self._evicted_before
        if self.policy == NO_EVICTION or self._evicted_before is None or is_restarted:
            self._evicted_before = evicted
        self.evicted = evicted - self._evicted_before


def info_fields(info: bytes) -> Mapping[str, str]:
    """Return the fields of an answer to INFO."""
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def policy_of(fields: Mapping[str, str]) -> str:
    """Return the `maxmemory-policy`. A server that tells none has none."""
    return fields.get("maxmemory_policy", NO_EVICTION)


def eviction_risk(policy: str) -> str:
    """Return what a server with this policy has and does, and what to do: a sentence that lacks the server's name."""
    return (
        f"has maxmemory-policy {policy}: if its memory is full it forgets used tokens without a word, and they could "
        f"be used again. Set maxmemory-policy to {NO_EVICTION} there."
    )


def eviction_warning(servers: Sequence[Eviction]) -> str | None:
    """Return one sentence about servers that may evict keys and what to do, or None."""
    risks = [eviction_risk(one.policy) for one in servers if one.policy != NO_EVICTION]
    return f"The engine {risks[0]}" if risks else None


def eviction_fault(servers: Sequence[Eviction]) -> str | None:
    """Return why tokens can't be relied on to be used once, or None: keys were evicted."""
    # a server of a cluster is asked once for each of its shards, so these numbers are no sum
    most = max((one.evicted for one in servers if one.policy != NO_EVICTION), default=0)
    if not most:
        return None
    lost = f"The engine has evicted at least {counted(most, 'key')}, so used tokens may be forgotten."
    return f"{lost} {eviction_warning(servers)}"
