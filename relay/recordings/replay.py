"""Playing recordings back with their own rhythm.

Several files are merged on one time line by their absolute receive times, so they should have been recorded
together. Quotes and trades keep the order in which they were received.

Due times are counted from the first message, never from the last one, so that the pace does not drift. When
publishing can't keep up nothing is left out: the batches grow, and `lag_s` says how far behind it is.
"""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relay.core.errors import ConfigurationError
from relay.core.patterns import is_channel
from relay.recordings.lines import QUOTE, TRADE, LineProblem, Message, Recorded, Recording, Skipped

WINDOW_S = 0.005
"""What is due within 5 ms goes out together: nobody sees that, and a burst of 668 in 10 ms needs two calls."""

MAX_BATCH = 1000
"""What the relay takes in one request."""

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """What was read so far. `skipped` counts lines that became no message by their kind."""

    lines: int = 0
    quotes: int = 0
    trades: int = 0
    malformed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def messages(self) -> int:
        """Quotes and trades together."""
        return self.quotes + self.trades


class Replay:
    """A recording of one or more files that plays itself.

    Args:
        files: recordings, plain or gzip.
        speed: 1 for the recorded rhythm, 10 for ten times as fast.
        loop: start over at the end, for ever.
        prices: what stands before the symbol in a quote's channel; "" or None skips quotes.
        trades: the same for trades.
        on_problem: called for each malformed line.

    Raises:
        ConfigurationError: if a file can't be read, or an argument makes no sense.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        speed: float = 1.0,
        loop: bool = False,
        prices: str | None = "prices",
        trades: str | None = "trades",
        on_problem: Callable[[LineProblem], None] = lambda _: None,
    ) -> None:
        if not files:
            raise ConfigurationError("Name at least one recorded file.")
        if not 0 < speed < float("inf"):
            raise ConfigurationError(f"The speed is a number above 0, not {speed}.")
        prefixes = {kind: prefix for kind, prefix in ((QUOTE, prices), (TRADE, trades)) if prefix}
        if not prefixes:
            raise ConfigurationError(
                "Neither quotes nor trades would be played: name the beginning of the channels of one at least."
            )
        for prefix in prefixes.values():
            if not is_channel(f"{prefix}.X"):
                raise ConfigurationError(
                    f"{prefix!r} can't be the beginning of a channel; prices and trades are the usual ones."
                )
        self._recordings = [Recording(path, prefixes=prefixes) for path in files]
        self._speed = speed
        self._loop = loop
        self._on_problem = on_problem
        self.tally = Tally()
        self.lag_s = 0.0
        self.next_in_s = 0.0

    @property
    def share_done(self) -> float:
        """How much of the files' bytes was read, from 0 to 1."""
        size = sum(recording.size for recording in self._recordings)
        return sum(recording.position for recording in self._recordings) / size if size else 1.0

    async def batches(
        self, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> AsyncIterator[list[Message]]:
        """Give each batch when it is due. Publish it before asking for the next, then `lag_s` is true."""
        while True:
            before = self.tally.messages
            async for batch in self._once(clock, sleep):
                yield batch
            if not self._loop or self.tally.messages == before:  # a loop over nothing would never let go
                return

    async def _once(self, clock: Clock, sleep: Sleep) -> AsyncIterator[list[Message]]:
        start = clock()
        first: int | None = None
        batch: list[Message] = []
        batch_due = limit = start
        for item in self._merged():
            first = item.at if first is None else first
            due = start + (item.at - first) / 1e9 / self._speed
            if batch and (due > limit or len(batch) == MAX_BATCH):
                await self._wait(batch_due, clock, sleep)
                yield batch
                batch = []
            if not batch:
                batch_due = due
                limit = max(due, clock()) + WINDOW_S
            batch.append(item.message)
        if batch:
            await self._wait(batch_due, clock, sleep)
            yield batch

    async def _wait(self, due: float, clock: Clock, sleep: Sleep) -> None:
        self.next_in_s = max(due - clock(), 0.0)
        if self.next_in_s:
            await sleep(self.next_in_s)
        self.next_in_s = 0.0
        self.lag_s = max(clock() - due, 0.0)

    def _merged(self) -> Iterator[Recorded]:
        """Put the messages of all files on one time line. Times in a file only grow: no sorting."""
        return heapq.merge(*map(self._messages, self._recordings), key=lambda item: item.at)

    def _messages(self, recording: Recording) -> Iterator[Recorded]:
        tally = self.tally
        for line in recording.lines():
            tally.lines += 1
            match line:
                case Recorded():
                    if line.kind == QUOTE:
                        tally.quotes += 1
                    else:
                        tally.trades += 1
                    yield line
                case Skipped():
                    tally.skipped[line.kind] += 1
                case LineProblem():
                    tally.malformed += 1
                    self._on_problem(line)
