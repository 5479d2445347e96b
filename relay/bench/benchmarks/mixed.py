"""`relay bench mixed`: many subscribers, each of a few of many channels.

Each delivery goes to another set of subscribers than the last one, so nothing is gained by writing the same bytes to
all of them; what can be gained is one write for all that a subscriber has waiting.
"""

from dataclasses import dataclass, field
from typing import Annotated

from relay.bench.benchmarks.benchmark import MAX_TICKS, Interval, Rate, Seconds, Subscribers, option
from relay.bench.benchmarks.delivery import MAX_EACH, DeliveryBenchmark, made_up
from relay.bench.load.servers import Server
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import MANY_TOGETHER, Ticks
from relay.core.errors import ConfigurationError

BURST_S = 0.005
"""So often a feed is read. With a request for each tick the publisher would take all CPU that the relay leaves free."""


@dataclass(frozen=True, kw_only=True)
class Mixed(DeliveryBenchmark):
    """Many subscribers, each of a few of many channels, as dashboards are.

    The defaults are 200,000 deliveries a second. The yardstick is a loop that
    does nothing but write, as often as the relay did when it ran last.
    """

    NAME = "mixed"
    YARDSTICK = ("bare loop", "as often as the relay, one write for all that is due, on uvloop")
    P99_AT_MOST = 1.5
    QUICK = {"subscribers": 200, "each": 10, "channels": 100, "rate": 1000, "seconds": 2}

    subscribers: Subscribers = 1000
    each: Annotated[int, option("Channels that each subscribes to.", 1, MAX_EACH)] = 20
    channels: Annotated[int, option("Channels that there are.", 1, 10_000)] = 500
    rate: Rate = 5000
    seconds: Seconds = 10
    interval_ms: Interval = 0
    values_a_read: list[float] = field(default_factory=list, repr=False)

    def check(self) -> None:
        if self.rate * self.seconds > MAX_TICKS:
            raise ConfigurationError(f"--rate times --seconds is more than {MAX_TICKS:,} ticks.")
        if self.each > self.channels:
            raise ConfigurationError(
                f"--each {self.each} is more than there are: --channels is {self.channels}."
            )

    def headline(self) -> str:
        interval = f", every {self.interval_ms} ms" if self.interval_ms else ""
        return (
            f"{self.subscribers:,} subscribers of {self.each} of {self.channels} channels each, "
            f"{self.rate:g} ticks/s for {self.seconds:g} s{interval}"
        )

    def make_ticks(self) -> Ticks:
        count = max(self.channels, self.rate * self.seconds)
        channels = [f"prices.BENCH.{number}" for number in range(self.channels)]
        return made_up(channels, rate=self.rate, count=count, together=MANY_TOGETHER, burst_s=BURST_S)

    def groups(self, server: Server) -> list[GroupOrder]:
        target = server.target(self.make_ticks().channels, interval_ms=self.interval_ms)
        return [GroupOrder(target=target, connections=self.subscribers, each=self.each)]
