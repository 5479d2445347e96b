"""Playing recorded market traffic back with its own rhythm.

A recording has one line for each WebSocket frame that was received: `<receive time, Unix ns> <the frame>`,
plain or gzip. Of its streams only `<symbol>@bookTicker`, the best bid and ask, becomes a quote; everything
else is counted by kind. Several files are merged on one time line by their absolute receive times, so they
should have been recorded together. They come from outside: nothing here trusts their form.

Spot and futures of one symbol are different markets under one name. Files whose name begins with `usdm_`
(USDT-margined futures) therefore get the suffix -PERP: `prices.BTCUSDT` and `prices.BTCUSDT-PERP`.

Due times are counted from the first quote, never from the last one, so that the pace does not drift. When
publishing can't keep up nothing is left out: the batches grow, and `lag_s` says how far behind it is.
"""

import asyncio
import gzip
import heapq
import re
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from relay.core.channels import is_channel
from relay.core.errors import ConfigurationError
from relay.demo.market import Quote

WINDOW_S = 0.005
"""Quotes due within 5 ms go out together: nobody sees that, and a burst of 668 in 10 ms needs two calls."""

MAX_BATCH = 1000
"""What the relay takes in one request."""


MAX_LINE_BYTES = 1 << 20
"""Depth snapshots have 64 KB; a longer line than this is no recording, and would only fill the memory."""

FUTURES_FILES = "usdm_"
FUTURES_SUFFIX = "-PERP"

_DECIMAL = re.compile(r"[0-9]{1,24}(?:\.[0-9]{1,24})?", re.ASCII)
_STREAM = re.compile(r"[^@]{1,64}@([A-Za-z]{1,32})", re.ASCII)
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineProblem:
    """A line that is not of the format, and why; `line` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line of another kind, like `trade` or `depth`."""

    kind: str


class _Frame(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)  # empty: no `data` came


class _BookTicker(msgspec.Struct):
    symbol: str = msgspec.field(name="s")
    bid: str = msgspec.field(name="b")
    bid_size: str = msgspec.field(name="B")
    ask: str = msgspec.field(name="a")
    ask_size: str = msgspec.field(name="A")


_frames = msgspec.json.Decoder(_Frame)
_tickers = msgspec.json.Decoder(_BookTicker)

Line = tuple[int, Quote] | Skipped | LineProblem


class Recording:
    """A recorded file. `size` and `position` are in bytes as stored.

    Raises:
        ConfigurationError: if it can't be opened.
    """

    def __init__(self, path: Path, *, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        self._suffix = FUTURES_SUFFIX if path.name.startswith(FUTURES_FILES) else ""
        self.position = 0
        try:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                self._is_gzip = file.read(2) == _GZIP_MAGIC
        except OSError as error:
            raise ConfigurationError(f"The recording {path} can't be read: {error.strerror}.") from None

    def lines(self) -> Iterator[Line]:
        """Read the file from its beginning."""
        number = 0
        try:
            with self._path.open("rb") as stored:
                text = cast("BinaryIO", gzip.GzipFile(fileobj=stored)) if self._is_gzip else stored
                while line := text.readline(MAX_LINE_BYTES):
                    number += 1
                    self.position = stored.tell()
                    if len(line) == MAX_LINE_BYTES:
                        _skip_rest(text)
                        yield self._problem(number, f"it is longer than {MAX_LINE_BYTES} bytes.")
                    elif line.strip():
                        yield self._parse(number, line)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            yield self._problem(number + 1, "the gzip data is damaged here, and the rest can't be read.")
        except OSError as error:
            yield self._problem(number + 1, f"the file can't be read any further: {error.strerror}.")

    def _problem(self, number: int, message: str) -> LineProblem:
        return LineProblem(file=self._path.name, line=number, message=message)

    def _parse(self, number: int, line: bytes) -> Line:
        time_text, _, frame_text = line.partition(b" ")
        if not time_text.isdigit() or len(time_text) > 19:
            return self._problem(number, "it doesn't begin with a time in Unix nanoseconds and a space.")
        try:
            frame = _frames.decode(frame_text)
            kind = "no stream" if frame.stream is None else _kind(frame.stream)
            if kind != "bookTicker":
                return Skipped(kind)
            ticker = _tickers.decode(frame.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return self._problem(number, f"its frame is not what was recorded: {error}.")
        symbol = ticker.symbol + self._suffix
        channel = f"{self._prefix}.{symbol}"
        if not is_channel(channel):
            return self._problem(number, "its symbol can't be part of a channel.")
        values = {
            "bid": ticker.bid,
            "bid_size": ticker.bid_size,
            "ask": ticker.ask,
            "ask_size": ticker.ask_size,
        }
        if not all(_DECIMAL.fullmatch(value) for value in values.values()):
            return self._problem(number, "its prices and sizes are not decimals.")
        return int(time_text), (channel, {"symbol": symbol} | values)


def _kind(stream: str) -> str:
    match = _STREAM.match(stream)
    return match[1] if match else "other"


def _skip_rest(text: BinaryIO) -> None:
    while (line := text.readline(MAX_LINE_BYTES)) and not line.endswith(b"\n"):
        pass


@dataclass(slots=True)
class Tally:
    """What was read so far. `skipped` counts lines that are no quotes by their kind."""

    lines: int = 0
    quotes: int = 0
    malformed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


class Replay:
    """A recording of one or more files that plays itself.

    Args:
        files: recordings, plain or gzip.
        speed: 1 for the recorded rhythm, 10 for ten times as fast.
        loop: start over at the end, for ever.
        prefix: what stands before the symbol in the channel.
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
        prefix: str = "prices",
        on_problem: Callable[[LineProblem], None] = lambda _: None,
    ) -> None:
        if not files:
            raise ConfigurationError("Name at least one recorded file.")
        if not 0 < speed < float("inf"):
            raise ConfigurationError(f"The speed is a number above 0, not {speed}.")
        if not is_channel(f"{prefix}.X"):
            raise ConfigurationError(
                f"{prefix!r} can't be the beginning of a channel; prices is the usual one."
            )
        self._recordings = [Recording(path, prefix=prefix) for path in files]
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
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncIterator[list[Quote]]:
        """Give each batch when it is due. Publish it before asking for the next, then `lag_s` is true."""
        while True:
            before = self.tally.quotes
            async for batch in self._once(clock, sleep):
                yield batch
            if not self._loop or self.tally.quotes == before:  # a loop over nothing would never let go
                return

    async def _once(
        self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> AsyncIterator[list[Quote]]:
        start = clock()
        first: int | None = None
        batch: list[Quote] = []
        batch_due = limit = start
        for at, quote in self._merged():
            first = at if first is None else first
            due = start + (at - first) / 1e9 / self._speed
            if batch and (due > limit or len(batch) == MAX_BATCH):
                await self._wait(batch_due, clock, sleep)
                yield batch
                batch = []
            if not batch:
                batch_due = due
                limit = max(due, clock()) + WINDOW_S
            batch.append(quote)
        if batch:
            await self._wait(batch_due, clock, sleep)
            yield batch

    async def _wait(
        self, due: float, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.next_in_s = max(due - clock(), 0.0)
        if self.next_in_s:
            await sleep(self.next_in_s)
        self.next_in_s = 0.0
        self.lag_s = max(clock() - due, 0.0)

    def _merged(self) -> Iterator[tuple[int, Quote]]:
        """Put the quotes of all files on one time line. Times in a file only grow: no sorting."""
        return heapq.merge(
            *(self._quotes(recording) for recording in self._recordings), key=lambda item: item[0]
        )

    def _quotes(self, recording: Recording) -> Iterator[tuple[int, Quote]]:
        for line in recording.lines():
            self.tally.lines += 1
            match line:
                case LineProblem():
                    self.tally.malformed += 1
                    self._on_problem(line)
                case Skipped():
                    self.tally.skipped[line.kind] += 1
                case _:
                    self.tally.quotes += 1
                    yield line
