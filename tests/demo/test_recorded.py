"""Recorded traffic, read and played."""

import gzip
import json
import os
from collections.abc import Iterable
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.errors import ConfigurationError
from relay.demo.market import Quote
from relay.demo.recorded import MAX_BATCH, MAX_LINE_BYTES, LineProblem, Recording, Replay

BEGIN = 1_723_161_254_000_000_000
MARKET = Path(os.environ.get("RELAY_MARKET", Path(__file__).parents[3] / "shared" / "market"))


class _Time:
    """A clock that only sleeping moves."""

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


def line(ms: float, frame: Any) -> bytes:
    """Return a line with any frame."""
    return b"%d %b\n" % (BEGIN + int(ms * 1_000_000), json.dumps(frame).encode())


def recording(path: Path, lines: Iterable[bytes]) -> Path:
    """Write a recording, with gzip if its name says so."""
    content = b"".join(lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def beginnings(count: int) -> dict[str, list[bytes]]:
    """Return the first lines of a real spot and a real futures recording, by file name."""
    found = sorted(MARKET.glob("spot_*.gz"))[:1] + sorted(MARKET.glob("usdm_*.gz"))[-1:]
    if len(found) < 2:
        pytest.skip(f"no recorded market in {MARKET}; RELAY_MARKET names its folder")
    parts = {}
    for path in found:
        with gzip.open(path, "rb") as file:
            parts[path.name] = list(islice(file, count))
    return parts


async def play(
    *files: Path, time: _Time | None = None, **options: Any
) -> tuple[list[tuple[float, list[Quote]]], Replay, list[LineProblem]]:
    """Play files on a clock of their own; returns the batches with their times from the start."""
    problems: list[LineProblem] = []
    replay = Replay(files, on_problem=problems.append, **options)
    time = time or _Time()
    batches = [
        (time.now - 100.0, batch) async for batch in replay.batches(clock=time.clock, sleep=time.sleep)
    ]
    return batches, replay, problems


@pytest.mark.parametrize("name", ["spot.gz", "spot.txt"])
async def test_quotes_are_taken_over_verbatim(tmp_path: Path, name: str) -> None:
    """Best bid and ask become a quote with the recorded decimals; plain and gzip files read the same."""
    path = recording(tmp_path / name, [ticker(0, "61837.63000000")])
    [(at, [(channel, quote)])], replay, problems = await play(path)
    assert at == 0
    assert channel == "prices.BTCUSDT"
    assert quote == {
        "symbol": "BTCUSDT",
        "bid": "61837.63000000",
        "bid_size": "2.0",
        "ask": "1.20",
        "ask_size": "3.0",
    }
    assert replay.share_done == 1.0
    assert problems == []


async def test_the_recorded_rhythm_is_kept(tmp_path: Path) -> None:
    """Quotes come as far apart as they were received; what is due within 5 ms goes out together."""
    path = recording(tmp_path / "a.gz", [ticker(ms) for ms in (0, 2, 4, 100, 350, 351)])
    batches, replay, _ = await play(path)
    assert [(round(at, 6), len(batch)) for at, batch in batches] == [(0, 3), (0.1, 1), (0.35, 2)]
    assert replay.lag_s == pytest.approx(0)


async def test_speed_divides_the_time_between_quotes(tmp_path: Path) -> None:
    """Ten times as fast means a tenth of every pause."""
    path = recording(tmp_path / "a.gz", [ticker(ms) for ms in (0, 1000, 3000)])
    batches, _, _ = await play(path, speed=10)
    assert [round(at, 6) for at, _ in batches] == [0, 0.1, 0.3]


async def test_files_are_merged_on_one_time_line(tmp_path: Path) -> None:
    """Each file keeps its rhythm, and they keep their order among each other; futures have their own symbol."""
    spot = recording(tmp_path / "spot_btc.gz", [ticker(0, "1"), ticker(200, "3")])
    futures = recording(tmp_path / "usdm_btc.gz", [ticker(100, "2"), ticker(300, "4")])
    batches, replay, _ = await play(spot, futures)
    assert [(round(at, 6), channel, quote["bid"]) for at, [(channel, quote)] in batches] == [
        (0, "prices.BTCUSDT", "1"),
        (0.1, "prices.BTCUSDT-PERP", "2"),
        (0.2, "prices.BTCUSDT", "3"),
        (0.3, "prices.BTCUSDT-PERP", "4"),
    ]
    assert batches[1][1][0][1]["symbol"] == "BTCUSDT-PERP"
    assert replay.share_done == 1.0


async def test_other_streams_are_counted_by_kind(tmp_path: Path) -> None:
    """Trades, depth and snapshots are no quotes, and no mistakes either."""
    lines = [
        line(0, {"stream": "btcusdt@trade", "data": {"p": "1"}}),
        line(1, {"stream": "btcusdt@depth@100ms", "data": {}}),
        line(2, {"stream": "btcusdt@depth@0ms", "data": {}}),
        line(3, {"lastUpdateId": 5, "bids": []}),
        line(4, {"stream": "nonsense", "data": {}}),
        b"\n",
        ticker(5),
    ]
    batches, replay, problems = await play(recording(tmp_path / "a", lines))
    assert sum(len(batch) for _, batch in batches) == 1
    assert dict(replay.tally.skipped) == {"trade": 1, "depth": 2, "no stream": 1, "other": 1}
    assert problems == []


async def test_malformed_lines_are_named_and_passed_over(tmp_path: Path) -> None:
    """Every malformed line is reported with its number, and the quotes around it are played."""
    bad = [
        b"no time {}\n",
        b"123\n",
        b"%d not json\n" % BEGIN,
        b"%d \xff\xfe\n" % BEGIN,
        b'%d {"stream":"a@bookTicker"}\n' % BEGIN,
        b"%d " % BEGIN + b"[" * 5000 + b"\n",
        ticker(1, "1e5"),
        ticker(1, "-1"),
        ticker(1, "NaN"),
        ticker(1, ""),
        ticker(1, symbol="BTC USDT"),
        ticker(1, B=5),
        line(1, {"stream": 5}),
        line(1, []),
    ]
    path = recording(tmp_path / "a.gz", [ticker(0), *bad, ticker(10)])
    batches, replay, problems = await play(path)
    assert sum(len(batch) for _, batch in batches) == 2
    assert [problem.line for problem in problems] == list(range(2, 2 + len(bad)))
    assert replay.tally.malformed == len(bad)
    assert str(problems[0]).startswith("a.gz, line 2: ")


async def test_a_line_without_end_costs_no_memory(tmp_path: Path) -> None:
    """A line of many megabytes is one malformed line, read in pieces, and the next one counts as the next."""
    path = recording(tmp_path / "a", [b"1 " + b"x" * (3 * MAX_LINE_BYTES) + b"\n", ticker(0)])
    batches, _, problems = await play(path)
    assert [(problem.line, "longer than" in problem.message) for problem in problems] == [(1, True)]
    assert len(batches) == 1


async def test_a_damaged_gzip_file_ends_with_a_sentence(tmp_path: Path) -> None:
    """What was readable is played; the damage is reported with the line where it lies."""
    path = recording(tmp_path / "a.gz", [ticker(number) for number in range(20_000)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    _, replay, problems = await play(path)
    assert replay.tally.quotes > 1000
    [problem] = problems
    assert "damaged" in problem.message
    assert problem.line == replay.tally.quotes + 1


async def test_falling_behind_leaves_nothing_out(tmp_path: Path) -> None:
    """When publishing is too slow the batches grow to the relay's bound and the lag is told."""
    path = recording(tmp_path / "a.gz", [ticker(number) for number in range(3000)])
    time = _Time()
    replay = Replay([path])
    sizes = []
    lags = []
    async for batch in replay.batches(clock=time.clock, sleep=time.sleep):
        sizes.append(len(batch))
        lags.append(replay.lag_s)
        time.now += 1.3
    assert sum(sizes) == 3000
    assert max(sizes) == MAX_BATCH
    assert max(lags) > 0.5


async def test_a_loop_starts_over(tmp_path: Path) -> None:
    """At the end the first quote comes again, and the time line goes on."""
    path = recording(tmp_path / "a.gz", [ticker(0, "1"), ticker(100, "2")])
    time = _Time()
    replay = Replay([path], loop=True)
    batches = replay.batches(clock=time.clock, sleep=time.sleep)
    bids = [(await anext(batches))[0][1]["bid"] for _ in range(5)]
    assert bids == ["1", "2", "1", "2", "1"]


async def test_a_loop_over_nothing_ends(tmp_path: Path) -> None:
    """Files without quotes don't keep a loop busy for ever."""
    batches, replay, _ = await play(recording(tmp_path / "a", [line(0, {})]), loop=True)
    assert batches == []
    assert replay.tally.lines == 1


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """A missing file, a folder, a speed of nothing, a prefix that is no channel: one sentence each."""
    path = recording(tmp_path / "a", [ticker(0)])
    for files, options, sentence in [
        ([], {}, "at least one"),
        ([tmp_path / "none.gz"], {}, "can't be read"),
        ([tmp_path], {}, "can't be read"),
        ([path], {"speed": 0}, "above 0"),
        ([path], {"speed": float("nan")}, "above 0"),
        ([path], {"speed": float("inf")}, "above 0"),
        ([path], {"prefix": "a b"}, "beginning of a channel"),
    ]:
        with pytest.raises(ConfigurationError, match=sentence):
            Replay(files, **options)  # type: ignore[arg-type]  # each has options of its own


@settings(deadline=None)
@given(content=st.binary(max_size=400))
def test_any_file_is_read_to_its_end(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing in a file raises anything; each line is a quote, another kind, or a problem with a number."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    for item in Recording(path, prefix="prices").lines():
        if isinstance(item, LineProblem):
            assert item.line >= 1
            assert item.message


async def test_real_traffic_plays(tmp_path: Path) -> None:
    """The beginning of a real recording: every quote of it, on its channel, in its time."""
    lines = beginnings(10_000)
    files = [recording(tmp_path / name, part) for name, part in lines.items()]
    batches, replay, problems = await play(*files)
    assert problems == []
    assert replay.tally.lines == 20_000
    tickers = [item for part in lines.values() for item in part if b'@bookTicker"' in item]
    assert replay.tally.quotes == sum(len(batch) for _, batch in batches) == len(tickers)
    spot, futures = sorted({channel for _, batch in batches for channel, _ in batch}, key=len)
    assert not spot.endswith("-PERP")
    assert futures.endswith("-PERP")
    assert all(Decimal(quote["bid"]) <= Decimal(quote["ask"]) for _, batch in batches for _, quote in batch)
    times = [int(item.partition(b" ")[0]) for item in tickers]
    assert batches[-1][0] == pytest.approx((max(times) - min(times)) / 1e9, abs=0.01)
