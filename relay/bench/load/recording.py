"""Recorded market traffic as the script of a run: read once, before anything is measured.

Unzipping and parsing a recording costs more than publishing it does. The publisher and the yardstick therefore get the
same prepared lines (`ticks.script_line`).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from relay.bench.load.ticks import script_line
from relay.core.errors import ConfigurationError
from relay.recordings import LineProblem, Replay

PRICES, TRADES = "prices", "trades"
MAX_NAMES_BYTES = 6000
"""The URL of a connection has all channels of a kind, and its line has 8192 bytes at most."""


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
    files: Sequence[Path], path: Path, *, speed: float, seconds: float, show: Callable[[float], None]
) -> Script:
    """Write the first `seconds` of play to `path`. `show` is called with the share of the files that was read. Raises
    ConfigurationError if a file can't be read, none has a quote or a trade, or they have too many symbols.
    """
    script = Script(path=path)

    def count_problem(_problem: LineProblem) -> None:
        script.malformed += 1

    replay = Replay(files, speed=speed, prices=PRICES, trades=TRADES, on_problem=count_problem)
    asyncio.run(_write(replay, script, seconds, show))
    if not script.counts:
        raise ConfigurationError(
            "There is nothing to play in these files: no quote (<symbol>@bookTicker) and no trade (<symbol>@trade)."
        )
    for kind in (PRICES, TRADES):
        names = [script.channels[place] for place in script.places(kind)]
        if len(",".join(names)) > MAX_NAMES_BYTES:
            raise ConfigurationError(
                f"These files have {len(names):,} symbols with {kind}: more than one subscriber can name. "
                "Take fewer files."
            )
    return script


async def _write(replay: Replay, script: Script, seconds: float, show: Callable[[float], None]) -> None:
    clock = _PlayedClock()
    places: dict[str, int] = {}
    with script.path.open("wb") as lines:
        async for batch in replay.batches(clock=clock, sleep=clock.sleep):
            if clock.now > seconds:
                break
            script.pause_s = max(script.pause_s, clock.now - script.seconds)
            script.seconds = clock.now
            for channel, value in batch:
                place = places.setdefault(channel, len(places))
                script.counts[channel] = script.counts.get(channel, 0) + 1
                lines.write(script_line(clock.now, place, msgspec.json.encode(value)))
            show(replay.share_done)
