"""The channels of each subscriber: as many subscribers for every channel, and not the same sets."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from relay.bench.load.subscribers import deal


@given(st.integers(0, 60), st.integers(1, 40), st.data())
def test_every_channel_has_as_many_subscribers(subscribers: int, channels: int, data: st.DataObject) -> None:
    """No subscriber has a channel twice, and the channels' numbers of subscribers differ by one at most."""
    each = data.draw(st.integers(0, channels))
    hands = deal(subscribers, channels, each)
    assert len(hands) == subscribers
    assert all(len(set(hand)) == len(hand) == (each or channels) for hand in hands)
    counts = Counter(channel for hand in hands for channel in hand)
    numbers = [counts[channel] for channel in range(channels)]
    assert max(numbers) - min(numbers) <= 1


def test_sets_differ_from_subscriber_to_subscriber() -> None:
    """A server can't serve a few sets instead of many channels, and both servers meet the same ones."""
    hands = deal(1000, 500, 20)
    assert len({frozenset(hand) for hand in hands}) == 1000
    assert hands == deal(1000, 500, 20)
