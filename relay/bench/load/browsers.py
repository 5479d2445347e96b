"""Newcomers as browsers come, as a process: `python -m relay.bench.load.browsers`.

`parallel` of them are on their way at any time; with as many as there are newcomers all come at once. One loop has
them all: no thread waits for its turn, as no browser does. Who is told to wait waits so long, and who is refused
because its token has grown old on the way takes a new one, as the clients do (`relay.bench.load.browser`).

    in   {"target": {…}, "connections": n, "parallel": n, "first": n, "pid": p}
    out  {"connected": n}     now and then
    out  {"arrived": {…}}     see `Arrived`; the connections close at the end of standard input
"""

import contextlib
import heapq
import select
import sys
import time
from collections import Counter

import msgspec

from relay.bench.load.browser import Newcomer
from relay.bench.load.connections import Order
from relay.bench.load.orders import Gone, is_told, read_line, say
from relay.bench.load.processes import cpu_of, memory_of
from relay.bench.load.totals import quantile
from relay.core.errors import RelayError

GIVE_UP_S = 60.0
"""Seconds in which nobody came in, after which those who are still on their way are lost."""
TELL_EVERY_S = 0.25
TURN_S = 0.1


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """How they came in. CPU is the server's, in seconds, except `cpu_s`, this process's own in `wall_s`.

    Times are from a newcomer's first packet to its acknowledged subscription, waits included. `refusals` counts answers
    that made somebody wait or try again, by what they were; `lost` never came in, or were closed again.
    """

    connections: int
    lost: int
    refusals: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    server_cpu_s: float
    memory_bytes: int
    wall_s: float
    cpu_s: float


class Arrivals:
    """Lets newcomers come, and keeps them."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._poll = select.epoll()
        self._by_socket: dict[int, Newcomer] = {}
        self._waiting: list[tuple[float, int, Newcomer]] = []  # the number settles a tie
        self._all: list[Newcomer] = []
        self._settled = 0
        self._refusals: Counter[str] = Counter()

    def all_in(self) -> Arrived:
        """Return when everybody is in, or lost.

        Raises:
            BenchError: if the server can't be measured any more.
        """
        order = self._order
        memory, cpu, own_cpu = memory_of(order.pid), cpu_of(order.pid), time.process_time()
        started = told_at = moved_at = time.monotonic()
        settled = 0
        while self._settled < order.connections and (now := time.monotonic()) - moved_at < GIVE_UP_S:
            while len(self._all) < order.connections and len(self._all) - self._settled < order.parallel:
                self._begin()
            self.turn()
            if settled != self._settled:
                settled, moved_at = self._settled, now
            if now - told_at > TELL_EVERY_S:
                told_at = now
                say(connected=settled)
        times = sorted(one.took_s for one in self._all if one.took_s is not None)
        return Arrived(
            connections=order.connections,
            lost=order.connections - sum(one.took_s is not None and not one.is_lost for one in self._all),
            refusals=dict(self._refusals),
            p50_ms=quantile(times, 0.5, unit=1e-3),
            p99_ms=quantile(times, 0.99, unit=1e-3),
            max_ms=quantile(times, 1.0, unit=1e-3),
            server_cpu_s=cpu_of(order.pid) - cpu,
            memory_bytes=memory_of(order.pid) - memory,
            wall_s=time.monotonic() - started,
            cpu_s=time.process_time() - own_cpu,
        )

    def turn(self) -> None:
        """Go on with who has heard something or has waited long enough; waits a little for one to be there."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            self._go_on(heapq.heappop(self._waiting)[2])
        for number, _ in self._poll.poll(TURN_S):
            self._go_on(self._by_socket[number])

    def close(self) -> None:
        """Hang up on the server."""
        for newcomer in self._all:
            newcomer.hang_up()

    def _begin(self) -> None:
        number = self._order.first + len(self._all)
        newcomer = Newcomer(number, self._order.target, poll=self._poll, refusals=self._refusals)
        self._all.append(newcomer)
        self._go_on(newcomer)

    def _go_on(self, newcomer: Newcomer) -> None:
        was_in = newcomer.took_s is not None
        wait_s = next(newcomer.steps, 0.0)
        if not was_in and (newcomer.took_s is not None or newcomer.is_lost):
            self._settled += 1
        if wait_s:
            heapq.heappush(self._waiting, (time.monotonic() + wait_s, id(newcomer), newcomer))
        elif (number := newcomer.fileno()) is not None:
            self._by_socket[number] = newcomer


def main() -> None:
    """Carry out one order."""
    try:
        arrivals = Arrivals(msgspec.json.decode(read_line(), type=Order))
        say(arrived=arrivals.all_in())
        with contextlib.suppress(Gone):
            while not is_told() or read_line():  # its end
                arrivals.turn()
        arrivals.close()
    except RelayError as error:
        say(error=str(error))
    except (Gone, BrokenPipeError):
        sys.exit(0)


if __name__ == "__main__":
    main()
