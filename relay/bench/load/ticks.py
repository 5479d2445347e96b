"""The ticks that a benchmark publishes, and the marks by which they are counted without being parsed.

A subscriber's frame of one made-up tick has about 150 bytes, like a best bid and ask. Recorded messages get the same
marks after their last member. `t` is the time at which the tick was made: CLOCK_MONOTONIC, in nanoseconds, the same for
all processes of one machine. The run's own name stands before it, so that neither an old snapshot of the channel nor
another publisher's tick counts.

Messages of `stream` channels have a number too. None of them may be missing, and with a count alone a message that came
twice would make up for a lost one.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from relay.core.messages import update
from relay.core.publications import Publication

QUOTE = b'{"bid":"64012.31","ask":"64012.32"}'
TOGETHER = 32
"""Ticks in one request: parsing them takes a millisecond of the relay's loop, a frame of all has 5 KB."""
MANY_TOGETHER = 256
"""The same for thousands of ticks a second on many channels. The publisher waits for each answer, and a busy loop needs
10 ms for one: with fewer ticks in a request the publisher would be measured, or a burst would be stretched.
"""


class Tick(NamedTuple):
    """One tick: seconds from the start at which it is due, its channel's place in the list, its JSON object.

    `number` counts the messages of all `stream` channels from 0; -1 on channels of mode `latest`.
    """

    due_s: float
    channel: int
    data: bytes
    number: int = -1


class Ticks(msgspec.Struct, frozen=True, kw_only=True):
    """The ticks of one run; `run` is a name of 8 hex digits.

    Made-up ones go to `channels` in turn: `count` of them, at `rate` a second (0: as fast as they are taken).
    With `script` they come from that file instead, see `script_line`. `streams` are the places of channels of mode
    `stream`; for made-up ticks all places or none. `together` is how many due ticks may share a request.
    """

    run: str
    channels: list[str]
    rate: float = 0.0
    count: int = 0
    script: str = ""
    streams: frozenset[int] = frozenset()
    together: int = TOGETHER

    @property
    def marker(self) -> bytes:
        """What each tick has once, directly before the digits of its time."""
        return b'"run":"%b","t":' % self.run.encode()

    @property
    def end_marker(self) -> bytes:
        """What the value after a channel's last tick has, directly before its place (five digits), and the number of
        its ticks (nine).
        """
        return b'"end":"%b.' % self.run.encode()

    @property
    def number_marker(self) -> bytes:
        """What a message of a `stream` channel has, directly before the nine digits of its number."""
        return b'"n":"%b.' % self.run.encode()

    def due(self) -> Iterator[Tick]:
        """Give all ticks in order."""
        if self.script:
            yield from self._scripted()
            return
        for number in range(self.count):
            due_s = number / self.rate if self.rate else 0.0
            yield Tick(due_s, number % len(self.channels), QUOTE, number if self.streams else -1)

    def _scripted(self) -> Iterator[Tick]:
        number = 0
        with Path(self.script).open("rb") as lines:
            for line in lines:
                due_s, place, data = line.rstrip(b"\n").split(b" ", 2)
                channel = int(place)
                if channel in self.streams:
                    yield Tick(float(due_s), channel, data, number)
                    number += 1
                else:
                    yield Tick(float(due_s), channel, data)

    def value(self, tick: Tick) -> bytes:
        """Return a tick's JSON object, made now."""
        number = b'%b%09d",' % (self.number_marker, tick.number) if tick.number >= 0 else b""
        return b"%b,%b%b%d}" % (tick.data[:-1], number, self.marker, time.monotonic_ns())

    def end_value(self, channel: int, count: int) -> bytes:
        """Return the JSON object that is a channel's end mark: it has had `count` ticks."""
        return b'{%b%05d.%09d"}' % (self.end_marker, channel, count)

    def draft(self, channel: int, value: bytes) -> bytes:
        """Return a value as POST /v1/publish takes it."""
        return b'{"channel":"%b","data":%b}' % (self.channels[channel].encode(), value)

    def message(self, channel: int, value: bytes, seq: int) -> bytes:
        """Return a value as the relay's subscribers get it; for servers that are compared."""
        name, ts = self.channels[channel], int(time.time() * 1000)
        return update(Publication(channel=name, epoch="", seq=seq, ts=ts, data=value))


def script_line(due_s: float, channel: int, data: bytes) -> bytes:
    """Return one line of a script: when, where, and the JSON object, which is not empty and has no line break."""
    return b"%.6f %d %b\n" % (due_s, channel, data)
