"""Replay of recordings at their recorded pace.

Several files are merged by their absolute receive times, so they should have been recorded at the same time. Quotes
and trades keep the order in which they were received.

Due times are computed from the first message and not from the previous one, so the pace does not drift. If publishing
is too slow, no message is skipped. The batches grow, and `lag_s` is the delay.
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
"""Messages that are due within 5 ms form one batch. The difference is not visible, and a burst of 668 messages in 10 ms
needs two calls."""

MAX_BATCH = 1000
"""Messages that the relay accepts in one request."""

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """What was read so far. `skipped` counts the lines of other kinds, by kind."""

    lines: int = 0
    quotes: int = 0
    trades: int = 0
    malformed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def messages(self) -> int:
        """The number of quotes and trades together."""
        return self.quotes + self.trades


class Replay:
    """The replay of one or more recordings.

    Args:
        files: Recordings, plain or gzip.
        speed: 1 for the recorded pace, 10 for ten times as fast.
        loop: Start again at the end, without a limit.
        prices: The part before the symbol in a quote's channel. "" or None skips quotes.
        trades: The same for trades.
        on_problem: Called for each malformed line.

    Raises:
        ConfigurationError: if a file can't be read, or if an argument is not valid.
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
            raise ConfigurationError("There is no recording to play. Name at least one file.")
        if not 0 < speed < float("inf"):
            raise ConfigurationError(f"The speed is {speed}. It must be a number above 0.")
        prefixes = {kind: prefix for kind, prefix in ((QUOTE, prices), (TRADE, trades)) if prefix}
        if not prefixes:
            raise ConfigurationError(
                "Neither quotes nor trades would be played. Set the channel prefix of prices or of trades."
            )
        for prefix in prefixes.values():
            if not is_channel(f"{prefix}.X"):
                raise ConfigurationError(
                    f"{prefix!r} can't be the prefix of a channel. The usual ones are prices and trades."
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
        """The part of the files' bytes that was read, from 0 to 1."""
        size = sum(recording.size for recording in self._recordings)
        return sum(recording.position for recording in self._recordings) / size if size else 1.0

    async def batches(
        self, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> AsyncIterator[list[Message]]:
        """Yield each batch when it is due. Publish it before you request the next one: then `lag_s` is right."""
        while True:
            before = self.tally.messages
            async for batch in self._once(clock, sleep):
                yield batch
            if not self._loop or self.tally.messages == before:  # a loop without messages would block forever
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
        """Merge the messages of all files by time. Within a file the times only grow."""
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
