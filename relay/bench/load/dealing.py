"""Who subscribes to what: each of many channels gets as many subscribers as every other, give or take one.

Dealt like cards, from a shuffled deck of all channels that is taken up anew when it runs out. A plain rule ("from
the seventh on, every twentieth") would give most subscribers the same set, and then a server could serve sets
instead of channels. The shuffle is the same in every run and for every server.
"""

import random


def deal(subscribers: int, channels: int, each: int) -> list[tuple[int, ...]]:
    """Return for each subscriber the places of its channels, none twice. `each` 0 is all of them.

    `each` is at most `channels`.
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
