"""A limit for log lines about the same thing: one line a minute, with the number of those that were left out.

A client that is refused tries again, for hours. Its refusals must be in the log, and must not fill it.
"""

from collections import OrderedDict
from collections.abc import Hashable

EVERY_S = 60.0
"""Seconds between two lines about the same thing."""

MAX_THINGS = 1024
"""Things that are remembered. Above it the oldest are forgotten, and may be logged again within the minute."""


class LogLimit:
    """Decides which lines are written. `now` is the time of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def admit(self, thing: Hashable, now: float) -> int | None:
        """Return None if a line about `thing` must not be written, or else how many were left out since the last."""
        last = self._lines.get(thing)
        if last is not None and now - last[0] < EVERY_S:
            self._lines[thing] = (last[0], last[1] + 1)
            return None
        self._lines[thing] = (now, 0)
        self._lines.move_to_end(thing)
        if len(self._lines) > MAX_THINGS:
            self._lines.popitem(last=False)
        return 0 if last is None else last[1]
