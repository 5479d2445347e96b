"""The channels that a caller may have, as a set of granted patterns."""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.core.patterns import covers, intersection, is_pattern

MAX_CHANNELS = 32
"""Channels or patterns in one token. 32 of 40 characters make a token of 2,461 bytes. nginx accepts header lines of
8 KB."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The patterns that a token or a role grants."""

    patterns: tuple[str, ...]

    def allows(self, requested: str) -> bool:
        """Tell whether one granted pattern covers `requested`, a channel or pattern. A malformed one is not allowed."""
        return is_pattern(requested) and any(covers(granted, requested) for granted in self.patterns)

    def split(self, requested: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Split `requested` into what this scope grants completely and the rest, in order and without repetitions."""
        granted: dict[str, None] = {}
        rejected: dict[str, None] = {}
        for channel in requested:
            (granted if self.allows(channel) else rejected)[channel] = None
        return tuple(granted), tuple(rejected)

    def cut(self, requested: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Cut `requested` down to what this scope grants, and return it with the requests that lost something.

        Of a pattern that is wider than the scope, the part that both have is granted: `prices.>` of a scope with
        `prices.BTC-USD` becomes that channel. The granted part has at most `MAX_CHANNELS` patterns. What is granted
        completely comes first, and no part is listed that another pattern covers.
        """
        whole, cut = self.split(requested)
        granted = list(whole[:MAX_CHANNELS])
        parts = dict.fromkeys(
            part
            for wide in cut
            if is_pattern(wide)
            for pattern in self.patterns
            if (part := intersection(wide, pattern)) is not None
        )
        for part in parts:
            is_covered = any(covers(other, part) for other in (*granted, *parts) if other != part)
            if len(granted) < MAX_CHANNELS and part not in granted and not is_covered:
                granted.append(part)
        return tuple(granted), cut

    def narrowest(self, name: str) -> tuple[str, ...]:
        """Return the narrowest patterns that grant `name`: those that were needed for it.

        A user that has `prices.>` and `prices.BTC-USD`, and reads the latter, does not need the former.
        """
        granting = [pattern for pattern in self.patterns if covers(pattern, name)]
        if len(granting) == 1:
            return (granting[0],)
        return tuple(
            pattern
            for pattern in granting
            if not any(other != pattern and covers(pattern, other) for other in granting)
        )

    def intersect(self, other: "Scope") -> "Scope":
        """Return the patterns of each scope that the other scope covers: what both grant.

        Patterns that only overlap are left out. For example, `a.*` and `*.b` both grant `a.b`. With 32 of each kind
        there would be 1,024 patterns, and it is safe to grant too little.
        """
        both = dict.fromkeys(p for p in self.patterns if other.allows(p))
        both.update(dict.fromkeys(p for p in other.patterns if self.allows(p)))
        return Scope(tuple(both))
