"""A simulated market: random walks of twenty symbols, at the rate of a real feed and with its bursts.

Each symbol follows a geometric Brownian motion: between two quotes the logarithm of its price changes by its volatility
times the square root of the elapsed time, so the chart looks the same at any rate. Prices are kept as whole ticks and
printed as decimals; a float never reaches a quote.

The random generator and the time are arguments, so a test can simulate an hour in a moment.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

Quote = tuple[str, dict[str, str]]
"""A channel, and the value for it."""

STEP_S = 0.02
"""Quotes of the same 20 ms are published together: nobody sees the difference, and the relay gets fewer calls."""

BURST_EVERY_S, BURST_QUOTES, BURST_S = 20.0, 160, 0.4
"""Simulated news: every 20 s on average, three symbols send 400 quotes a second for 0.4 s, with large changes."""

MAX_LAG_S = 1.0
"""If the market is later than this (a laptop slept), it continues from now and skips the missed quotes."""

_YEAR_S = 365.25 * 24 * 3600
_BURST_VOLATILITY = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """A symbol. `decimals` sets the tick, `volatility` is per year, `weight` is the share of the quotes."""

    symbol: str
    price: float
    decimals: int
    volatility: float
    spread_ticks: int
    size: float
    weight: float


def _instrument(
    symbol: str, price: float, decimals: int, volatility: float, spread: int, size: float, weight: float
) -> Instrument:
    return Instrument(
        symbol=symbol,
        price=price,
        decimals=decimals,
        volatility=volatility,
        spread_ticks=spread,
        size=size,
        weight=weight,
    )


INSTRUMENTS: tuple[Instrument, ...] = (
    _instrument("BTC-USD", 64_123.41, 2, 0.55, 3, 0.8, 9),
    _instrument("ETH-USD", 3_412.77, 2, 0.65, 2, 6.0, 8),
    _instrument("SOL-USD", 171.264, 3, 0.85, 3, 60.0, 6),
    _instrument("XRP-USD", 0.59214, 5, 0.75, 3, 9_000.0, 4),
    _instrument("DOGE-USD", 0.123456, 6, 0.95, 8, 30_000.0, 4),
    _instrument("ADA-USD", 0.45127, 5, 0.80, 4, 12_000.0, 3),
    _instrument("AVAX-USD", 31.845, 3, 0.90, 6, 200.0, 3),
    _instrument("LINK-USD", 14.2731, 4, 0.85, 8, 400.0, 3),
    _instrument("DOT-USD", 6.4182, 4, 0.80, 6, 900.0, 2),
    _instrument("LTC-USD", 83.514, 3, 0.65, 9, 90.0, 2),
    _instrument("BCH-USD", 391.27, 2, 0.75, 7, 14.0, 2),
    _instrument("UNI-USD", 9.7316, 4, 0.90, 9, 500.0, 2),
    _instrument("XAU-USD", 2_356.18, 2, 0.16, 12, 12.0, 3),
    _instrument("EUR-USD", 1.08524, 5, 0.08, 2, 1_500_000.0, 5),
    _instrument("GBP-USD", 1.27318, 5, 0.09, 3, 900_000.0, 4),
    _instrument("USD-JPY", 156.427, 3, 0.10, 3, 1_200_000.0, 4),
    _instrument("USD-CHF", 0.89135, 5, 0.08, 4, 700_000.0, 2),
    _instrument("ACME-USD", 187.42, 2, 0.35, 2, 400.0, 3),
    _instrument("ORBIT-USD", 54.19, 2, 0.45, 2, 700.0, 2),
    _instrument("ZENITH-USD", 912.60, 2, 0.30, 9, 80.0, 2),
)
"""Twenty symbols; the three companies do not exist."""


class _Walk:
    """One symbol's price, in ticks, and its quotes."""

    def __init__(self, instrument: Instrument, random: Random) -> None:
        self._instrument = instrument
        self._random = random
        self._scale = 10**instrument.decimals
        self._price = instrument.price * self._scale
        self._per_second = instrument.volatility / math.sqrt(_YEAR_S)
        self._at = 0.0

    def quote(self, at: float, *, excitement: float = 1.0) -> dict[str, str]:
        elapsed = max(at - self._at, STEP_S)
        self._at = at
        step = self._per_second * math.sqrt(elapsed) * excitement
        self._price = max(self._price * math.exp(self._random.gauss(0.0, step)), 2.0)
        wide = self._instrument.spread_ticks
        spread = max(1, round(self._random.triangular(0.5 * wide, 2.0 * wide, wide)))
        bid = max(1, math.floor(self._price - spread / 2))
        return {
            "symbol": self._instrument.symbol,
            "bid": self._decimal(bid),
            "bid_size": self._size(),
            "ask": self._decimal(bid + spread),
            "ask_size": self._size(),
        }

    def _decimal(self, ticks: int) -> str:
        whole, part = divmod(ticks, self._scale)
        return f"{whole}.{part:0{self._instrument.decimals}d}"

    def _size(self) -> str:
        size = self._instrument.size * self._random.lognormvariate(0.0, 0.8)
        return f"{size:.4f}" if self._instrument.size < 100 else f"{max(size, 1.0):.0f}"


class Market:
    """The market. `rate` is the mean number of quotes a second, bursts included."""

    def __init__(
        self,
        random: Random,
        *,
        rate: float = 60.0,
        instruments: Sequence[Instrument] = INSTRUMENTS,
        prefix: str = "prices",
    ) -> None:
        self._random = random
        self._walks = {f"{prefix}.{item.symbol}": _Walk(item, random) for item in instruments}
        self._channels = tuple(self._walks)
        self._weights = tuple(item.weight for item in instruments)
        self._quiet_rate = max(rate - BURST_QUOTES / BURST_EVERY_S, rate / 2)
        self._burst_rate = max(rate - self._quiet_rate, 0.0) / BURST_QUOTES
        self._now = 0.0
        self._next_quote = random.expovariate(self._quiet_rate)
        self._next_burst = random.expovariate(self._burst_rate)
        self._burst: tuple[str, ...] = ()
        self._burst_quotes: list[float] = []

    def opening(self) -> list[Quote]:
        """Return one quote for each symbol, so that every channel has a value from the start."""
        return [(channel, walk.quote(self._now)) for channel, walk in self._walks.items()]

    def next_batch(self) -> tuple[float, list[Quote]]:
        """Return the next quotes and their time, in seconds since the opening."""
        batch: list[Quote] = []
        while not batch:
            self._now += STEP_S
            while self._next_quote <= self._now:
                channel = self._random.choices(self._channels, self._weights)[0]
                batch.append((channel, self._walks[channel].quote(self._now)))
                self._next_quote += self._random.expovariate(self._quiet_rate)
            batch += self._burst_batch()
        return self._now, batch

    def _burst_batch(self) -> list[Quote]:
        if self._next_burst <= self._now:
            self._next_burst = self._now + self._random.expovariate(self._burst_rate)
            self._burst = tuple(self._random.sample(self._channels, k=min(3, len(self._channels))))
            times = (self._now + self._random.random() * BURST_S for _ in range(BURST_QUOTES))
            self._burst_quotes = sorted(times, reverse=True)
        batch: list[Quote] = []
        while self._burst_quotes and self._burst_quotes[-1] <= self._now:
            self._burst_quotes.pop()
            channel = self._random.choice(self._burst)
            batch.append((channel, self._walks[channel].quote(self._now, excitement=_BURST_VOLATILITY)))
        return batch

    async def batches(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncIterator[list[Quote]]:
        """Yield the opening, and then each batch at its time, without end.

        Times are counted from the start and not from the last batch, so that the rate does not drift.
        """
        start = clock()
        yield self.opening()
        while True:
            at, batch = self.next_batch()
            wait = start + at - clock()
            if wait > 0:
                await sleep(wait)
            elif wait < -MAX_LAG_S:
                start -= wait
            yield batch
