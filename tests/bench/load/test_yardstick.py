"""The bare loop, which `relay bench mixed` compares the relay with."""

from typing import Any

from relay.bench.load.ticks import QUOTE, Tick, Ticks
from relay.bench.load.yardstick import BareLoop, Order


class Connection:
    """A connection that is its own transport."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.transport, self.write = self, self.writes.append


async def test_the_bare_loop_writes_when_each_connection_has_enough() -> None:
    """It has one write for all that is due to a connection, as soon as they have so many values on average."""
    loop = BareLoop(Order(ticks=Ticks(run="0" * 8, channels=["a", "b"]), values_a_write=1.5))
    both: list[Any] = [Connection(), Connection()]
    loop.subscribers["a"].add(both[0])
    loop.subscribers["b"].update(both)
    for channel, written in [(0, [0, 0]), (1, [1, 1]), (1, [1, 1]), (0, [2, 2])]:
        loop.send(Tick(0.0, channel, QUOTE))
        await loop._wait(0.0)
        assert [len(one.writes) for one in both] == written
    assert [one.writes[0].count(b'"run"') for one in both] == [2, 1]
