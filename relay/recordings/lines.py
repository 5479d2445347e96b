"""Recorded market traffic, read line by line.

A recording is a plain or gzip file. It has one line for each received WebSocket frame: `<receive time, Unix ns>
<frame>`. Two kinds of streams become messages, and all others are counted by kind:

    <symbol>@bookTicker   the best bid and ask   prices.<SYMBOL>  symbol, bid, bid_size, ask, ask_size
    <symbol>@trade        one trade              trades.<SYMBOL>  symbol, trade_id, price, size, side

Prices and sizes are kept as the recorded decimal strings and never become floats. `side` is the side of the taker, who
crossed the spread. The recording has the opposite (`m`: the buyer was the maker, so the taker sold).

Spot and futures of one symbol are different markets with one name. Symbols of files whose name begins with `usdm_`
(USDT-margined futures) therefore get the suffix -PERP: `prices.BTCUSDT` and `prices.BTCUSDT-PERP`.

Recordings come from outside, so every line is checked.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from relay.core.errors import ConfigurationError
from relay.core.patterns import is_channel

MAX_LINE_BYTES = 1 << 20
"""Longest line. Depth snapshots have 64 KB. A longer line is not from a recording and would fill the memory."""

FUTURES_FILES = "usdm_"
FUTURES_SUFFIX = "-PERP"

QUOTE, TRADE = "bookTicker", "trade"
"""The kinds of streams that become messages."""

MAX_TRADE_ID = (1 << 53) - 1
"""Highest trade id. A browser rounds higher numbers, and two trades could get the same id."""

_DECIMAL = re.compile(r"[0-9]{1,24}(?:\.[0-9]{1,24})?", re.ASCII)
_STREAM = re.compile(r"[^@]{1,64}@([A-Za-z]{1,32})", re.ASCII)
_GZIP_MAGIC = b"\x1f\x8b"

Message = tuple[str, dict[str, str | int]]
"""A channel and its value."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line that became a message: the receive time in Unix nanoseconds, `QUOTE` or `TRADE`, and the message."""

    at: int
    kind: str
    message: Message


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line of a kind that was not requested, such as `depth`."""

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineProblem:
    """A line that does not have the format, and the reason. `line` starts at 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.message}"


class _Frame(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)  # empty if the frame has no `data`


class _BookTicker(msgspec.Struct):
    symbol: str = msgspec.field(name="s")
    bid: str = msgspec.field(name="b")
    bid_size: str = msgspec.field(name="B")
    ask: str = msgspec.field(name="a")
    ask_size: str = msgspec.field(name="A")


class _Trade(msgspec.Struct):
    symbol: str = msgspec.field(name="s")
    trade_id: int = msgspec.field(name="t")
    price: str = msgspec.field(name="p")
    size: str = msgspec.field(name="q")
    buyer_was_maker: bool = msgspec.field(name="m")


_frames = msgspec.json.Decoder(_Frame)
_tickers = msgspec.json.Decoder(_BookTicker)
_trades = msgspec.json.Decoder(_Trade)

Line = Recorded | Skipped | LineProblem


class Recording:
    """A recorded file. `size` and `position` are in bytes of the stored file.

    `prefixes` has the requested kinds, and for each the part of the channel before the symbol.

    Raises:
        ConfigurationError: if the file can't be opened.
    """

    def __init__(self, path: Path, *, prefixes: dict[str, str]) -> None:
        self._path = path
        self._prefixes = prefixes
        self._suffix = FUTURES_SUFFIX if path.name.startswith(FUTURES_FILES) else ""
        self.position = 0
        try:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                self._is_gzip = file.read(2) == _GZIP_MAGIC
        except OSError as error:
            raise ConfigurationError(f"The recording {path} can't be read: {error.strerror}.") from None

    def lines(self) -> Iterator[Line]:
        """Read the file from its start."""
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
            yield self._problem(number + 1, "the gzip data is damaged here. The rest can't be read.")
        except OSError as error:
            yield self._problem(number + 1, f"the file can't be read any further: {error.strerror}.")

    def _problem(self, number: int, message: str) -> LineProblem:
        return LineProblem(file=self._path.name, line=number, message=message)

    def _parse(self, number: int, line: bytes) -> Line:
        time_text, _, frame_text = line.partition(b" ")
        if not time_text.isdigit() or len(time_text) > 19:
            return self._problem(number, "it does not begin with a time in Unix nanoseconds and a space.")
        try:
            frame = _frames.decode(frame_text)
            kind = "no stream" if frame.stream is None else _kind(frame.stream)
            prefix = self._prefixes.get(kind)
            if prefix is None:
                return Skipped(kind)
            symbol, value = _VALUES[kind](frame.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return self._problem(number, f"its frame does not have the recorded form: {error}.")
        except _FormatProblem as error:
            return self._problem(number, str(error))
        symbol += self._suffix
        channel = f"{prefix}.{symbol}"
        if not is_channel(channel):
            return self._problem(number, "its symbol can't be part of a channel.")
        return Recorded(int(time_text), kind, (channel, {"symbol": symbol, **value}))


class _FormatProblem(Exception):  # noqa: N818  # a problem of the file and not of this program
    """A frame is JSON of the right form, but has a wrong value."""


def _quote(data: msgspec.Raw) -> tuple[str, dict[str, str | int]]:
    ticker = _tickers.decode(data)
    _check_decimals(ticker.bid, ticker.bid_size, ticker.ask, ticker.ask_size)
    return ticker.symbol, {
        "bid": ticker.bid,
        "bid_size": ticker.bid_size,
        "ask": ticker.ask,
        "ask_size": ticker.ask_size,
    }


def _trade(data: msgspec.Raw) -> tuple[str, dict[str, str | int]]:
    trade = _trades.decode(data)
    _check_decimals(trade.price, trade.size)
    if not 0 <= trade.trade_id <= MAX_TRADE_ID:
        raise _FormatProblem(f"its trade id is not a whole number from 0 to {MAX_TRADE_ID}.")
    return trade.symbol, {
        "trade_id": trade.trade_id,
        "price": trade.price,
        "size": trade.size,
        "side": "sell" if trade.buyer_was_maker else "buy",
    }


_VALUES: dict[str, Callable[[msgspec.Raw], tuple[str, dict[str, str | int]]]] = {QUOTE: _quote, TRADE: _trade}


def _check_decimals(*values: str) -> None:
    if not all(_DECIMAL.fullmatch(value) for value in values):
        raise _FormatProblem("its prices or sizes are not decimals.")


def _kind(stream: str) -> str:
    match = _STREAM.match(stream)
    return match[1] if match else "other"


def _skip_rest(text: BinaryIO) -> None:
    while (line := text.readline(MAX_LINE_BYTES)) and not line.endswith(b"\n"):
        pass
