"""The simulated market, run much faster than time."""

import re
from decimal import Decimal
from random import Random

from relay.core.patterns import is_channel
from relay.demo.market import INSTRUMENTS, MAX_LAG_S, Market, Quote


class _Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def _run(market: Market, seconds: float) -> list[tuple[float, list[Quote]]]:
    batches = []
    at = 0.0
    while at < seconds:
        at, batch = market.next_batch()
        batches.append((at, batch))
    return batches


def test_twenty_symbols_open() -> None:
    """Every channel has a value from the start, on a channel name that can be published to."""
    opening = Market(Random(1)).opening()
    assert len(opening) == len(INSTRUMENTS) == 20
    assert {channel for channel, _ in opening} == {f"prices.{item.symbol}" for item in INSTRUMENTS}
    assert all(is_channel(channel) for channel, _ in opening)


def test_quotes_are_decimals_in_ticks() -> None:
    """Prices are texts with exactly the tick's decimals, bids below asks, sizes above zero."""
    market = Market(Random(2))
    decimals = {item.symbol: item.decimals for item in INSTRUMENTS}
    quotes = market.opening() + [quote for _, batch in _run(market, 60) for quote in batch]
    for channel, quote in quotes:
        symbol = channel.removeprefix("prices.")
        assert list(quote) == ["symbol", "bid", "bid_size", "ask", "ask_size"]
        assert quote["symbol"] == symbol
        form = re.compile(rf"\d+\.\d{{{decimals[symbol]}}}")
        assert form.fullmatch(quote["bid"])
        assert form.fullmatch(quote["ask"])
        assert 0 < Decimal(quote["bid"]) < Decimal(quote["ask"])
        assert Decimal(quote["bid_size"]) > 0
        assert Decimal(quote["ask_size"]) > 0


def test_the_pace_is_about_sixty_a_second_with_bursts() -> None:
    """Over ten minutes the mean is as told; the busiest second has several times as much."""
    batches = _run(Market(Random(3)), 600)
    quotes = sum(len(batch) for _, batch in batches)
    seconds: dict[int, int] = {}
    for at, batch in batches:
        seconds[int(at)] = seconds.get(int(at), 0) + len(batch)
    assert 45 < quotes / 600 < 75
    assert max(seconds.values()) > 150
    assert {channel for _, batch in batches for channel, _ in batch} == {
        f"prices.{i.symbol}" for i in INSTRUMENTS
    }


def test_prices_move_but_stay_plausible() -> None:
    """Within ten minutes every price changes, and none doubles or halves."""
    market = Market(Random(4))
    opened = {channel: Decimal(quote["bid"]) for channel, quote in market.opening()}
    last = {channel: Decimal(quote["bid"]) for _, batch in _run(market, 600) for channel, quote in batch}
    assert all(opened[channel] != price for channel, price in last.items())
    assert all(opened[channel] / 2 < price < opened[channel] * 2 for channel, price in last.items())


def test_the_same_randomness_gives_the_same_market() -> None:
    """There is no randomness but the one that was passed in."""
    assert _run(Market(Random(5)), 20) == _run(Market(Random(5)), 20)
    assert _run(Market(Random(5)), 20) != _run(Market(Random(6)), 20)


async def test_batches_keep_to_the_clock() -> None:
    """The opening comes at once, and then each batch when it is due, counted from the start."""
    time = _Time()
    due = Market(Random(7))
    due.opening()
    batches = Market(Random(7)).batches(clock=time.clock, sleep=time.sleep)
    assert len(await anext(batches)) == 20
    for _ in range(50):
        at, expected = due.next_batch()
        assert [channel for channel, _ in await anext(batches)] == [channel for channel, _ in expected]
        assert abs(time.now - (100.0 + at)) < 1e-6
        time.now += 0.001  # publishing takes its time, and the schedule does not drift


async def test_a_market_that_slept_goes_on_from_now() -> None:
    """After a long pause there is no flood of quotes to make up for it."""
    time = _Time()
    batches = Market(Random(8)).batches(clock=time.clock, sleep=time.sleep)
    await anext(batches)
    await anext(batches)
    time.now += 60 * MAX_LAG_S
    await anext(batches)
    time.slept.clear()
    for _ in range(20):
        await anext(batches)
    assert len(time.slept) == 20
