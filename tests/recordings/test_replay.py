"""The replay of recordings at their recorded pace."""

import gzip
import os
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.recordings import Replay
from relay.recordings.replay import MAX_BATCH
from tests.support.recordings import Time, line, play, recording, ticker, trade

MARKET = Path(os.environ.get("RELAY_MARKET", Path(__file__).parents[3] / "shared" / "market"))


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


async def test_quotes_and_trades_keep_their_order(tmp_path: Path) -> None:
    """A trade comes between the quotes that it was received between, also at the very same time."""
    spot = recording(tmp_path / "spot_a", [ticker(0), trade(0, 1), trade(0, 2), ticker(0), trade(7, 3)])
    futures = recording(tmp_path / "usdm_a", [trade(3, 9), ticker(7)])
    batches, _, _ = await play(spot, futures)
    got = [(channel, value.get("trade_id")) for _, batch in batches for channel, value in batch]
    assert got == [
        ("prices.BTCUSDT", None),
        ("trades.BTCUSDT", 1),
        ("trades.BTCUSDT", 2),
        ("prices.BTCUSDT", None),
        ("trades.BTCUSDT-PERP", 9),
        ("trades.BTCUSDT", 3),
        ("prices.BTCUSDT-PERP", None),
    ]


async def test_falling_behind_leaves_nothing_out(tmp_path: Path) -> None:
    """When publishing is too slow the batches grow to the relay's bound and the lag is told."""
    path = recording(tmp_path / "a.gz", [ticker(number) for number in range(3000)])
    time = Time()
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
    time = Time()
    replay = Replay([path], loop=True)
    batches = replay.batches(clock=time.clock, sleep=time.sleep)
    bids = [(await anext(batches))[0][1]["bid"] for _ in range(5)]
    assert bids == ["1", "2", "1", "2", "1"]


async def test_a_loop_over_nothing_ends(tmp_path: Path) -> None:
    """A loop over files without quotes ends."""
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
        ([path], {"prices": "a b"}, "prefix of a channel"),
        ([path], {"trades": "*"}, "prefix of a channel"),
        ([path], {"trades": "", "prices": ""}, "Neither quotes nor trades"),
    ]:
        with pytest.raises(ConfigurationError, match=sentence):
            Replay(files, **options)  # type: ignore[arg-type]  # each has options of its own


async def test_real_traffic_plays(tmp_path: Path) -> None:
    """The beginning of a real recording: every quote and trade of it, on its channel, in its time."""
    lines = beginnings(10_000)
    files = [recording(tmp_path / name, part) for name, part in lines.items()]
    batches, replay, problems = await play(*files)
    assert problems == []
    assert replay.tally.lines == 20_000
    wanted = [
        item for part in lines.values() for item in part if b'@bookTicker"' in item or b'@trade"' in item
    ]
    messages = [message for _, batch in batches for message in batch]
    assert replay.tally.messages == len(messages) == len(wanted)
    assert sorted(len(channel) for channel in {channel for channel, _ in messages}) == [14, 14, 19, 19]
    quotes = [value for channel, value in messages if channel.startswith("prices.")]
    assert all(Decimal(quote["bid"]) <= Decimal(quote["ask"]) for quote in quotes)
    ids: dict[str, list[int | str]] = {}
    for channel, value in messages:
        if channel.startswith("trades."):
            ids.setdefault(channel, []).append(value["trade_id"])
    assert len(quotes) + sum(map(len, ids.values())) == len(messages)
    for numbers in ids.values():
        assert numbers == list(range(int(numbers[0]), int(numbers[0]) + len(numbers)))  # none lost
    times = [int(item.partition(b" ")[0]) for item in wanted]
    assert batches[-1][0] == pytest.approx((max(times) - min(times)) / 1e9, abs=0.01)
