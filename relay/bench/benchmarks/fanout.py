"""`relay bench fanout`: many subscribers of one channel, and the price of one delivery."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from relay.bench.benchmarks.benchmark import (
    EVENTS_YARDSTICK,
    MAX_TICKS,
    AnyRate,
    Subscribers,
    Transport,
    option,
)
from relay.bench.benchmarks.delivery import DeliveryBenchmark, Measured, made_up
from relay.bench.load.servers import Server
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import Ticks
from relay.bench.report import Run, median

CHANNEL = "prices.BENCH"
ALONE = 1.2
"""Ticks a read up to which each was a write of its own, as the yardstick's are."""


@dataclass(frozen=True, kw_only=True)
class Fanout(DeliveryBenchmark):
    """Fan ticks of 150 bytes out to many subscribers; what does one delivery cost?

    Starts a relay of its own, opens each connection with a token of its own,
    publishes over HTTP, and measures websockets.broadcast() under the same
    load in turn. With --transport sse the subscribers read event streams, and
    the yardstick is the relay's own WebSockets. Times depend on the machine:
    quote the ratios.
    """

    NAME = "fanout"
    YARDSTICK = ("broadcast()", "websockets.broadcast() on uvloop")
    QUICK = {"subscribers": 200, "ticks": 200}

    subscribers: Subscribers = 1000
    rate: AnyRate = 100
    ticks: Annotated[int, option("Ticks in all.", 1, MAX_TICKS)] = 500
    transport: Transport = "websocket"

    def yardstick(self) -> tuple[str, str]:
        return EVENTS_YARDSTICK if self.transport == "sse" else self.YARDSTICK

    def headline(self) -> str:
        pace = f"{self.rate:g} ticks/s" if self.rate else "ticks as fast as they go"
        over = " over event streams" if self.transport == "sse" else ""
        return f"{self.subscribers:,} subscribers{over}, {pace}, {self.ticks:,} ticks"

    def make_ticks(self) -> Ticks:
        return made_up([CHANNEL], rate=self.rate, count=self.ticks)

    def groups(self, server: Server) -> list[GroupOrder]:
        return [GroupOrder(target=server.target([CHANNEL]), connections=self.subscribers)]

    def own_member(self) -> str:
        return "events" if self.transport == "sse" else ""

    def notes(self, runs: Sequence[Run[Measured]]) -> list[str]:
        shared = median([run.relay.deliveries_a_read for run in runs])
        if not self.rate or self.transport == "sse" or shared is None or shared <= ALONE:
            return []
        return [
            f"The relay put {shared:.1f} ticks into one write, as it does when it has no core to itself. That is "
            "most of its lead here; at a lower --rate each tick is a write of its own."
        ]
