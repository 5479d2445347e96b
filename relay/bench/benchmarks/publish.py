"""`relay bench publish`: how many messages a second a backend can publish, and whether all arrive in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from relay.bench.benchmarks.benchmark import MAX_TICKS, AnyRate, Benchmark, Show, SideName, option
from relay.bench.benchmarks.delivery import Measured, deliver, made_up, opened, pace_notes
from relay.bench.benchmarks.issue import empty_route, send
from relay.bench.load.processes import cpu_of
from relay.bench.load.requester import Answered, Order
from relay.bench.load.servers import RunningRelay, own_relay, publishing_to
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import QUOTE
from relay.bench.report import Figure, busy_note

SINGLE = (b'{"channel":"prices.BENCH","data":%b}' % QUOTE).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One side of one run. The yardstick takes single requests only; `own_cores` is the CPU of the SDK's process."""

    measured: Measured | None = None
    own_cores: float | None = None
    singles: Answered | None = None


@dataclass(frozen=True, kw_only=True)
class Publish(Benchmark[Published]):
    """One publisher of the Python SDK: how many messages a second, each once and in order?

    They go over one connection to channels of mode stream, each with a
    subscriber that misses nothing. Then single requests, one after the other,
    beside a route that does nothing.
    """

    NAME = "publish"
    YARDSTICK = ("empty route", "a Starlette route that does nothing, on uvicorn with the relay's settings")
    QUICK = {"messages": 20_000, "singles": 500}

    messages: Annotated[int, option("Messages of the SDK.", 1, MAX_TICKS)] = 200_000
    channels: Annotated[int, option("Channels that they go to in turn.", 1, 1000)] = 10
    rate: AnyRate = 0
    singles: Annotated[int, option("Then so many single requests; 0: none.", 0, 1_000_000)] = 5000

    def headline(self) -> str:
        pace = f"{self.rate:g} a second" if self.rate else "as fast as they are taken"
        singles = f", then {self.singles:,} single requests" if self.singles else ""
        return f"{self.messages:,} messages to {self.channels} channels, {pace}{singles}"

    def measure_side(self, name: SideName, folder: Path, show: Show) -> Published:
        if name == "yardstick":
            with empty_route(folder) as order:
                return Published(singles=self._send_singles(order, folder, show))
        with own_relay(folder, sessions=self.channels) as running:
            measured, own_cores = publish_with_sdk(
                running, folder, show, self.channels, self.rate, self.messages
            )
            bearers = [running.publish_key]
            order = Order(url=running.internal, path="/v1/publish", bearers=bearers, pid=running.pid)
            singles = self._send_singles(order, folder, show)
            return Published(measured=measured, own_cores=own_cores, singles=singles)

    def _send_singles(self, order: Order, folder: Path, show: Show) -> Answered | None:
        if not self.singles:
            return None
        return send(
            order, folder, self.singles, lambda done: show(done, self.singles, "requests"), body=SINGLE
        )

    def figures(self) -> Sequence[Figure[Published]]:
        return [
            Figure("messages_per_s", "SDK: messages/s, one connection", "measured.published_per_s"),
            Figure("relay_cores", "SDK: the relay's CPU, cores", "measured.server_cores", ".2f"),
            Figure("own_cores", "SDK: its own CPU, cores", "own_cores", ".2f"),
            Figure("settled", "SDK: acked", "measured.published"),
            Figure("delivered", "SDK: arrived", "measured.counted.total.delivered"),
            Figure("lost", "SDK: lost", "measured.counted.total.lost"),
            Figure("repeated", "SDK: repeated", "measured.counted.total.repeated"),
            Figure("disordered", "SDK: out of order", "measured.counted.total.disordered"),
            Figure("singles_per_s", "single requests/s, one connection", "singles.ok_per_s", has_ratio=True),
            Figure("cpu_us_a_single", "CPU µs a single request", "singles.cpu_us_a_request", has_ratio=True),
        ]

    def is_whole(self, relay: Published) -> bool:
        measured, singles = relay.measured, relay.singles
        arrived = measured is None or (measured.is_whole and not measured.counted.total.disordered)
        return arrived and (singles is None or singles.ok == singles.requests)

    def side_notes(self, name: SideName, sides: Sequence[Published]) -> list[str]:
        measured = [one.measured for one in sides if one.measured is not None]
        if not measured:
            return []
        own_cores = [one.own_cores for one in sides if one.own_cores]
        return pace_notes(name, measured, self.rate) + busy_note(
            name, own_cores, program="The SDK's publisher"
        )


def publish_with_sdk(
    relay: RunningRelay, folder: Path, show: Show, channels: int, rate: float, count: float, readers: int = 1
) -> tuple[Measured, float]:
    """Publish to stream channels with the SDK, each with so many readers. Returns the SDK's CPU too, in cores."""
    names = [f"trades.BENCH{place}" for place in range(channels)]
    ticks = made_up(names, rate=rate, count=count, streams=frozenset(range(channels)))
    with publishing_to(relay, folder, ticks, sdk=True) as server:
        targets = [server.target([name], endpoint="trades") for name in names]
        groups = [GroupOrder(target=target, connections=readers, stream=True) for target in targets]
        with opened(server, groups, ticks, folder) as delivery:
            cpu_s = cpu_of(server.source.pid)
            measured = deliver(delivery, ticks, show)
            cpu_s = cpu_of(server.source.pid) - cpu_s
            return measured, cpu_s * measured.published_per_s / measured.published
