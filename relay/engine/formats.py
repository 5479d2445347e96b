"""The formats of the engine's logs. Each entry begins with the number of its format.

A release that changes what an entry looks like gets the next number. It reads that one and the one before, and writes
the one before until every node reads the new one (`nodes.py`). So nodes can be replaced one after the other, and back.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """The formats that a release reads, from `oldest` to `newest`."""

    oldest: int
    newest: int

    def reads(self, number: int) -> bool:
        """Tell whether an entry of this format can be read."""
        return self.oldest <= number <= self.newest

    def written(self, others: "Iterable[Formats]") -> int:
        """Return the format that this release writes beside others: the newest one that all of them read.

        Without such a one it is `oldest`: `EngineNodes.open` does not let a node start that can't read it.
        """
        return max(self.oldest, min([self.newest, *(other.newest for other in others)]))

    def __str__(self) -> str:
        return str(self.newest) if self.oldest == self.newest else f"{self.oldest} to {self.newest}"


THIS_RELEASE = Formats(oldest=1, newest=1)
