"""Subscribers that count what arrives, as a program: `python -m relay.bench.load.subscribers`.

    in   {"groups": [{"target": {…}, "connections": n, …}], "ticks": {…}, "stall_s": …, "ticks_each": n}
    out  {"open": true}                 all connections are open and subscribed
    in   {"window": true}               a new window of latencies begins
    out  {"window": true}
    out  {"counted": {…}}               see `relay.bench.load.counter.Counted`; the program ends

A sentence in `{"error": …}` instead of any of these ends it too, as does the end of standard input.
"""

import gc
import random
import sys
from collections.abc import Sequence

import msgspec

from relay.bench.load.clients import Target, open_all
from relay.bench.load.counter import Connection, Counter
from relay.bench.load.orders import carry_out, read_order, say
from relay.bench.load.ticks import Ticks


class GroupOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Connections of one kind, each to `each` of the target's channels (0: all).

    Nothing may be missing if they are a `stream`. `places` are the places of the target's channels among the ticks'
    channels, () if they are the same.
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


def deal(subscribers: int, channels: int, each: int) -> list[tuple[int, ...]]:
    """Return for each subscriber the places of its channels, none twice. `each` is at most `channels`; 0 is all.

    Every channel gets as many subscribers as every other, give or take one. Channels are dealt like cards, from a
    shuffled deck of all channels that is shuffled again when it is empty. A plain rule ("every twentieth") would give
    most subscribers the same set, and a server could serve sets instead of channels. The shuffle is the same in every
    run and for every server.
    """
    if not each or each == channels:
        return [tuple(range(channels))] * subscribers
    shuffler = random.Random(1)  # noqa: S311  # not a secret: the same for all
    deck: list[int] = []
    hands = []
    for _ in range(subscribers):
        hand: list[int] = []
        aside: list[int] = []  # what it has already, for the next one
        while len(hand) < each:
            if not deck:
                deck = list(range(channels))
                shuffler.shuffle(deck)
            card = deck.pop()
            (aside if card in hand else hand).append(card)
        deck += aside
        hands.append(tuple(hand))
    return hands


async def count_all(order: Order) -> None:
    """Open all connections, and count until everything has arrived."""
    groups = [await _open(group, place) for place, group in enumerate(order.groups)]
    counter = Counter(
        groups,
        order.ticks,
        streams=frozenset(place for place, group in enumerate(order.groups) if group.stream),
        stall_s=order.stall_s,
        ticks_each=order.ticks_each,
    )
    gc.freeze()
    gc.disable()  # a collection would be reported as the server's latency; nothing here makes cycles
    say(open=True)
    say(counted=counter.run(sys.stdin.fileno(), _hear))
    counter.close()


async def _open(group: GroupOrder, place: int) -> list[Connection]:
    hands = deal(group.connections, len(group.target.channels), group.each)
    links = await open_all(group.target, hands)
    return [
        Connection(link.socket, [group.places[card] for card in hand] if group.places else hand, group=place)
        for link, hand in zip(links, hands, strict=True)
    ]


def _hear() -> None:
    read_order()
    say(window=True)


if __name__ == "__main__":
    carry_out(Order, count_all)
