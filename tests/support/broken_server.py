"""A yardstick that is broken on purpose: `python -m tests.support.broken_server HOW`.

no-end     never sends the last value of the first channel
drops      leaves out every tenth message
repeats    sends every tenth message twice
closes     closes all connections at the tenth message
"""

import sys

from relay.bench.load.orders import carry_out
from relay.bench.load.ticks import Tick
from relay.bench.load.yardstick import Order, Yardstick, run

HOW = sys.argv[1]


class Broken(Yardstick):
    """Does what it should, but for one thing."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._ticks_seen = 0

    def send(self, tick: Tick) -> None:
        """Send one tick, more or less."""
        self._ticks_seen += 1
        if self._ticks_seen % 10:
            super().send(tick)
        elif HOW == "repeats":
            super().send(tick)
            super().send(tick)
            self.counts[tick.channel] -= 1
        elif HOW == "closes":
            for connection in {one for ones in self.subscribers.values() for one in ones}:
                connection.transport.close()
        elif HOW == "drops":
            self.counts[tick.channel] += 1  # as it says
        else:
            super().send(tick)

    def end(self) -> None:
        """Send the end marks."""
        if HOW == "no-end":
            self.subscribers[next(iter(self.subscribers))].clear()
        super().end()


carry_out(Order, lambda order: run(order, Broken))
