"""The ticks that a benchmark publishes, and the marks by which they are counted without being parsed.

A subscriber's frame of one made-up tick has about 150 bytes, like a best bid and ask. Recorded messages get the same
marks after their last member. `t` is when the tick was made: CLOCK_MONOTONIC, in nanoseconds. The run's own name stands
before it, so that neither an old snapshot of the channel nor another publisher's tick counts.

A recording is read once, before anything is measured: unzipping and parsing it costs more than publishing it does.
Messages of `stream` channels have a number: with a count alone, one that came twice would make up for a lost one.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from relay.core.errors import ConfigurationError
from relay.core.messages import update
from relay.core.publications import Publication
from relay.recordings import LineProblem, Replay

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


@cache
def _markers(run: str) -> tuple[bytes, bytes]:
    return b'"run":"%b","t":' % run.encode(), b'"n":"%b.' % run.encode()


class Ticks(msgspec.Struct, frozen=True, kw_only=True):
    """The ticks of one run; `run` is a name of 8 hex digits.

    Made-up ones go to `channels` in turn: `count` of them, at `rate` a second (0: as fast as they are taken).
    With `script` they come from that file instead, see `script_line`, at about that rate. `pause_s` is the longest time
    in which nothing is due. `streams` are the places of channels of mode `stream`; for made-up ticks all places or
    none. `together` is how many due ticks may share a request. Made-up ones that are due within `burst_s` come at once.
    """

    run: str
    channels: list[str]
    rate: float = 0.0
    count: int = 0
    script: str = ""
    streams: frozenset[int] = frozenset()
    together: int = TOGETHER
    burst_s: float = 0.0
    pause_s: float = 0.0

    @property
    def marker(self) -> bytes:
        """What each tick has once, directly before the digits of its time."""
        return _markers(self.run)[0]

    @property
    def end_marker(self) -> bytes:
        """What the value after a channel's last tick has, directly before its place (five digits), and the number of
        its ticks (nine).
        """
        return b'"end":"%b.' % self.run.encode()

    @property
    def number_marker(self) -> bytes:
        """What a message of a `stream` channel has, directly before the nine digits of its number."""
        return _markers(self.run)[1]

    def due(self) -> Iterator[Tick]:
        """Give all ticks in order."""
        if self.script:
            yield from self._scripted()
            return
        for number in range(self.count):
            due_s = number / self.rate if self.rate else 0.0
            if self.burst_s:
                due_s -= due_s % self.burst_s
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
        marker, number_marker = _markers(self.run)
        number = b'%b%09d",' % (number_marker, tick.number) if tick.number >= 0 else b""
        return b"%b,%b%b%d}" % (tick.data[:-1], number, marker, time.monotonic_ns())

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
    return b"%013.6f %d %b\n" % (due_s, channel, data)


PRICES, TRADES = "prices", "trades"
Show = Callable[[float], None]


@dataclass(slots=True, kw_only=True)
class Script:
    """What a recording has within the time that is played.

    `counts` are messages by channel, in the order of the script's places. `pause_s` is the longest time in which
    nothing is due. `malformed` lines were left out.
    """

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    pause_s: float = 0.0
    malformed: int = 0

    @property
    def channels(self) -> list[str]:
        """All channels, in the order of their places."""
        return list(self.counts)

    def places(self, kind: str) -> list[int]:
        """Return the places of the channels of `PRICES` or `TRADES`."""
        return [place for place, name in enumerate(self.counts) if name.startswith(f"{kind}.")]

    def total(self, kind: str = "") -> int:
        """Return how many messages there are, in all or of one kind."""
        return sum(count for name, count in self.counts.items() if name.startswith(kind))


class _PlayedClock:
    """A clock that a sleep sets forward without waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def write_script(
    files: Sequence[Path], path: Path, *, speed: float, seconds: float, parts: int = 1, show: Show
) -> Script:
    """Write the first `parts` of so many seconds of play to `path`, all beginning at once, the later ones with symbols
    of their own. `show` is called with the share of the files that was read. Raises ConfigurationError if a file can't
    be read, none has a quote or a trade, or they have fewer parts.
    """
    script = Script(path=path)

    def count_problem(_problem: LineProblem) -> None:
        script.malformed += 1

    replay = Replay(files, speed=speed, prices=PRICES, trades=TRADES, on_problem=count_problem)
    found = asyncio.run(_write(replay, script, seconds, parts, show))
    if not script.counts:
        raise ConfigurationError(
            "There is nothing to play in these files: no quote (<symbol>@bookTicker) and no trade (<symbol>@trade)."
        )
    if found < parts:
        raise ConfigurationError(f"--parts {parts} is more than there are of {seconds:g} s: {found}.")
    path.write_text("".join(sorted(path.read_text().splitlines(True), key=lambda line: line[:13])))
    return script


async def _write(replay: Replay, script: Script, seconds: float, parts: int, show: Show) -> int:
    """Write the lines part by part. Returns how many parts there were."""
    clock = _PlayedClock()
    part, places = 0, dict[str, int]()
    with script.path.open("wb") as lines:
        async for batch in replay.batches(clock=clock, sleep=clock.sleep):
            if clock.now > seconds * parts:
                break
            part = min(int(clock.now / seconds), parts - 1)
            due_s = clock.now - part * seconds
            script.pause_s = max(script.pause_s, due_s - script.seconds)
            script.seconds = max(script.seconds, due_s)
            suffix = f"-{part}" if part else ""
            for channel, value in batch:
                place = places.setdefault(channel + suffix, len(places))
                script.counts[channel + suffix] = script.counts.get(channel + suffix, 0) + 1
                data = msgspec.json.encode({**value, "symbol": f"{value['symbol']}{suffix}"})
                lines.write(script_line(due_s, place, data))
            show(replay.share_done)
    return part + 1
