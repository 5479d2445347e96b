"""Which channels a caller may have: a set of granted patterns, and the cut of what was asked for to it."""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.core.patterns import covers, is_pattern

MAX_CHANNELS = 32
"""Channels or patterns in one token: 32 of 40 characters make 2,461 bytes; nginx takes 8 KB a line."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The patterns that a token or a role grants."""

    patterns: tuple[str, ...]

    def allows(self, asked: str) -> bool:
        """Tell whether `asked`, a channel or pattern, lies in one granted pattern. Malformed is not."""
        return is_pattern(asked) and any(covers(granted, asked) for granted in self.patterns)

    def cut(self, asked: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Split `asked` into what this scope grants and what it does not, each once and in order."""
        granted: dict[str, None] = {}
        rejected: dict[str, None] = {}
        for channel in asked:
            (granted if self.allows(channel) else rejected)[channel] = None
        return tuple(granted), tuple(rejected)

    def narrowest(self, name: str) -> tuple[str, ...]:
        """Return the patterns that grant `name` without a narrower one doing so: with which of them it was used.

        Who has `prices.>` and `prices.BTC-USD`, and reads the latter, would not miss the former.
        """
        granting = [pattern for pattern in self.patterns if covers(pattern, name)]
        return tuple(
            pattern
            for pattern in granting
            if not any(other != pattern and covers(pattern, other) for other in granting)
        )

    def intersect(self, other: "Scope") -> "Scope":
        """Return the patterns of either scope that lie inside the other: what both grant.

        Patterns that cross (`a.*` and `*.b`) are left out, though both grant `a.b`: 32 of each kind would
        make 1,024 patterns, and granting too little is the safe side.
        """
        both = dict.fromkeys(p for p in self.patterns if other.allows(p))
        both.update(dict.fromkeys(p for p in other.patterns if self.allows(p)))
        return Scope(tuple(both))
