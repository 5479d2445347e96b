"""The ticks that a benchmark publishes, and the marks by which they are counted without being parsed.

A subscriber's frame of one tick has about 150 bytes, which is what a best bid and ask has. `t` is the time at
which the tick was made: CLOCK_MONOTONIC, in nanoseconds, the same for all processes of one machine. The run's
own name stands before it, so that neither an old snapshot of the channel nor another publisher's tick counts.
"""

import time
from dataclasses import dataclass

from relay.core.messages import update
from relay.core.publications import Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """The ticks of one run: `run` is a name of 8 hex digits, `channel` where they go."""

    run: str
    channel: str

    @property
    def marker(self) -> bytes:
        """What stands in every tick once, directly before the digits of its time."""
        return b'"run":"%b","t":' % self.run.encode()

    @property
    def end_marker(self) -> bytes:
        """What stands in the end mark: the value behind the last tick, after which none is missing any more."""
        return b'"end":"%b"' % self.run.encode()

    def draft(self) -> bytes:
        """Return the next tick as POST /v1/publish takes it, made now."""
        return self._draft(self._tick())

    def end_draft(self) -> bytes:
        """Return the end mark as POST /v1/publish takes it."""
        return self._draft(self._end())

    def message(self, seq: int) -> bytes:
        """Return the next tick as the relay's subscribers get it, made now; for servers that are compared."""
        return self._update(seq, self._tick())

    def end_message(self, seq: int) -> bytes:
        """Return the end mark as the relay's subscribers get it."""
        return self._update(seq, self._end())

    def _tick(self) -> bytes:
        return b'{"bid":"64012.31","ask":"64012.32",%b%d}' % (self.marker, time.monotonic_ns())

    def _end(self) -> bytes:
        return b"{%b}" % self.end_marker

    def _draft(self, data: bytes) -> bytes:
        return b'{"channel":"%b","data":%b}' % (self.channel.encode(), data)

    def _update(self, seq: int, data: bytes) -> bytes:
        return update(
            Publication(channel=self.channel, epoch="", seq=seq, ts=int(time.time() * 1000), data=data)
        )
