"""Recordings of market data that a test writes, and a clock to replay them with."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from relay.recordings import LineProblem, Replay
from relay.recordings.lines import Message

BEGIN = 1_723_161_254_000_000_000


class Time:
    """A clock that moves only by `sleep`."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def ticker(ms: float, bid: str = "1.10", *, symbol: str = "BTCUSDT", **members: Any) -> bytes:
    """Return the line of a quote, `ms` milliseconds after the beginning."""
    data = {"u": 1, "s": symbol, "b": bid, "B": "2.0", "a": "1.20", "A": "3.0"} | members
    return line(ms, {"stream": f"{symbol.lower()}@bookTicker", "data": data})


def trade(ms: float, number: int = 1, *, symbol: str = "BTCUSDT", **members: Any) -> bytes:
    """Return the line of a trade, a taker's sale."""
    data = {"e": "trade", "s": symbol, "t": number, "p": "1.10", "q": "0.5", "m": True} | members
    return line(ms, {"stream": f"{symbol.lower()}@trade", "data": data})


def line(ms: float, frame: Any) -> bytes:
    """Return a line with any frame."""
    return b"%d %b\n" % (BEGIN + int(ms * 1_000_000), json.dumps(frame).encode())


def recording(path: Path, lines: Iterable[bytes]) -> Path:
    """Write a recording, with gzip if its name says so."""
    content = b"".join(lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


async def play(
    *files: Path, time: Time | None = None, **options: Any
) -> tuple[list[tuple[float, list[Message]]], Replay, list[LineProblem]]:
    """Play files on a clock of their own; returns the batches with their times from the start."""
    problems: list[LineProblem] = []
    replay = Replay(files, on_problem=problems.append, **options)
    time = time or Time()
    batches = [
        (time.now - 100.0, batch) async for batch in replay.batches(clock=time.clock, sleep=time.sleep)
    ]
    return batches, replay, problems
