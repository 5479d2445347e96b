"""The load as a process: `python -m relay.bench.load.subscribers`, told what to do by lines on standard input.

    in   {"groups": [{"target": {…}, "connections": n, …}], "ticks": {…}, "stall_s": …, "ticks_each": n}
    out  {"open": n, "seconds": s}      all connections are open, subscribed, and quiet
    in   {"window": true}               latencies from here on are figures of their own
    out  {"window": true}
    in   {"finish": [n, …]}             all is published: so many ticks on each channel
    out  {"finishing": true}            now the end marks may come
    out  {"counted": {…}}               see `relay.bench.load.totals.Counted`; the process ends

A sentence in `{"error": …}` instead of any of these ends it too, as does the end of standard input.
"""

import gc
import sys
import time
from collections.abc import Sequence

import msgspec

from relay.bench.load.counter import Connection, Counter
from relay.bench.load.dealing import deal
from relay.bench.load.opener import Opener
from relay.bench.load.orders import Gone, read_line, read_order, say
from relay.bench.load.targets import Target
from relay.bench.load.ticks import Ticks
from relay.core.errors import RelayError


class GroupOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Connections of one kind. Each takes `each` of the target's channels (0: all); `stream` says that nothing may
    be missing on them. `places` are those of the target's channels among the ticks' ones, () if they are the same.
    """

    target: Target
    connections: int
    each: int = 0
    stream: bool = False
    places: Sequence[int] = ()


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to open and what to count."""

    groups: list[GroupOrder]
    ticks: Ticks
    stall_s: float
    ticks_each: int = 1


def main() -> None:
    """Carry out one order."""
    try:
        order = msgspec.json.decode(read_line(), type=Order)
        started = time.monotonic()
        groups = [_open(group, place) for place, group in enumerate(order.groups)]
        counter = Counter(
            groups,
            order.ticks,
            streams=frozenset(place for place, group in enumerate(order.groups) if group.stream),
            stall_s=order.stall_s,
            ticks_each=order.ticks_each,
        )
        gc.freeze()
        gc.disable()  # a collection would be reported as the server's latency; the load makes no cycles
        say(open=sum(map(len, groups)), seconds=time.monotonic() - started)
        counted = counter.run(sys.stdin.fileno(), _told)
        say(counted=counted)
        counter.close()
    except RelayError as error:
        say(error=str(error))
    except (Gone, BrokenPipeError):
        sys.exit(1)


def _open(group: GroupOrder, place: int) -> list[Connection]:
    hands = deal(group.connections, len(group.target.channels), group.each)
    sockets = Opener(group.target).open_all(hands)
    return [
        Connection(opened, [group.places[card] for card in hand] if group.places else hand, group=place)
        for opened, hand in zip(sockets, hands, strict=True)
    ]


def _told() -> Sequence[int] | None:
    message = read_order()
    if "finish" not in message:
        say(window=True)
        return None
    say(finishing=True)
    counts: Sequence[int] = message["finish"]
    return counts


if __name__ == "__main__":
    main()
