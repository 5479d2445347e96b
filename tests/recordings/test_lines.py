"""Lines of recordings: which become messages, which are counted, which are malformed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.recordings.lines import MAX_LINE_BYTES, QUOTE, TRADE, LineProblem, Recorded, Recording
from tests.support.recordings import BEGIN, line, play, recording, ticker, trade


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


async def test_trades_are_taken_over_verbatim(tmp_path: Path) -> None:
    """A trade has the recorded decimals and id, and the side of the taker, not of the maker."""
    lines = [
        trade(0, 3735683259, p="61837.63000000", q="0.02000000"),
        trade(1, 5266583935, p="61800.30", q="0.006", m=False),
    ]
    [(_, [first, second])], replay, problems = await play(recording(tmp_path / "usdm_a.gz", lines))
    assert first == (
        "trades.BTCUSDT-PERP",
        {
            "symbol": "BTCUSDT-PERP",
            "trade_id": 3735683259,
            "price": "61837.63000000",
            "size": "0.02000000",
            "side": "sell",
        },
    )
    assert second[1]["side"] == "buy"
    assert (replay.tally.quotes, replay.tally.trades) == (0, 2)
    assert problems == []


async def test_a_kind_without_a_prefix_is_skipped(tmp_path: Path) -> None:
    """Trades or quotes that were not requested are counted and not parsed."""
    path = recording(tmp_path / "a", [ticker(0), trade(1, p="nonsense")])
    for nothing in (None, ""):
        batches, replay, problems = await play(path, trades=nothing, prices="quotes")
        assert [channel for _, batch in batches for channel, _ in batch] == ["quotes.BTCUSDT"]
        assert dict(replay.tally.skipped) == {"trade": 1}
        assert problems == []
    path = recording(tmp_path / "a", [ticker(0), trade(1)])
    batches, replay, _ = await play(path, prices=None)
    assert [channel for _, batch in batches for channel, _ in batch] == ["trades.BTCUSDT"]
    assert dict(replay.tally.skipped) == {"bookTicker": 1}


async def test_other_streams_are_counted_by_kind(tmp_path: Path) -> None:
    """Depth and snapshots are no messages, and no mistakes either."""
    lines = [
        line(0, {"stream": "btcusdt@aggTrade", "data": {"p": "1"}}),
        line(1, {"stream": "btcusdt@depth@100ms", "data": {}}),
        line(2, {"stream": "btcusdt@depth@0ms", "data": {}}),
        line(3, {"lastUpdateId": 5, "bids": []}),
        line(4, {"stream": "nonsense", "data": {}}),
        b"\n",
        ticker(5),
    ]
    batches, replay, problems = await play(recording(tmp_path / "a", lines))
    assert sum(len(batch) for _, batch in batches) == 1
    assert dict(replay.tally.skipped) == {"aggTrade": 1, "depth": 2, "no stream": 1, "other": 1}
    assert problems == []


async def test_malformed_lines_are_named_and_passed_over(tmp_path: Path) -> None:
    """Every malformed line is reported with its number, and the lines around it are played."""
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
        trade(1, p="1e5"),
        trade(1, q=1),
        trade(1, t="1"),
        trade(1, t=-1),
        trade(1, t=2**53),
        trade(1, m="true"),
        trade(1, symbol="BTC USDT"),
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
    """What was readable is played. The damage is reported with its line."""
    path = recording(tmp_path / "a.gz", [ticker(number) for number in range(20_000)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    _, replay, problems = await play(path)
    assert replay.tally.quotes > 1000
    [problem] = problems
    assert "damaged" in problem.message
    assert problem.line == replay.tally.quotes + 1


@settings(deadline=None)
@given(content=st.binary(max_size=400))
def test_any_file_is_read_to_its_end(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing in a file raises anything; each line is a message, another kind, or a problem with a number."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    for item in Recording(path, prefixes={QUOTE: "prices", TRADE: "trades"}).lines():
        if isinstance(item, LineProblem):
            assert item.line >= 1
            assert item.message


@settings(deadline=None)
@given(
    stream=st.sampled_from(["a@trade", "a@bookTicker"]),
    data=st.dictionaries(
        st.sampled_from("stpqmbBaA"),
        st.none() | st.booleans() | st.integers() | st.sampled_from(["1.5", "0", "X", "", "1e5", "é"]),
    ),
)
def test_only_whole_messages_come_out(
    stream: str, data: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever members a frame has or lacks: a message has all of its own, in its types, or there is none."""
    path = tmp_path_factory.getbasetemp() / "frame"
    path.write_bytes(line(0, {"stream": stream, "data": data}))
    [item] = Recording(path, prefixes={QUOTE: "prices", TRADE: "trades"}).lines()
    if isinstance(item, Recorded):
        channel, value = item.message
        assert channel == f"{'trades' if item.kind == TRADE else 'prices'}.{value['symbol']}"
        number = value.pop("trade_id", 0)
        assert isinstance(number, int)
        assert all(isinstance(text, str) and text for text in value.values())
    else:
        assert isinstance(item, LineProblem)
