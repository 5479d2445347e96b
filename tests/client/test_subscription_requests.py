"""The frames that ask for channels, and for what was missed of them."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.client.subscriptions import SubscriptionRequest, subscription_requests
from relay.core.messages import (
    MAX_CHANNELS_A_FRAME,
    MAX_FRAME_BYTES,
    Subscribe,
    Unsubscribe,
    parse_client_frame,
)
from relay.core.patterns import covers

NAME = st.sampled_from([f"trades.{letter}{number}" for letter in "AB" for number in range(60)])
PATTERN = st.sampled_from(["trades.*", "trades.>", ">", "other.*"])
POSITIONS = st.dictionaries(NAME, st.tuples(st.just("epoch"), st.integers(0, 2**40)), max_size=80)
WANTED = st.dictionaries(NAME | PATTERN, st.sampled_from([0, 100]), max_size=80)


def test_a_long_list_is_cut_into_frames() -> None:
    """The relay takes 256 channels a frame."""
    asks = subscription_requests({f"prices.{number}": 0 for number in range(450)}, {}, again=False)
    assert [len(ask.names) for ask in asks] == [200, 200, 50]


def test_a_pattern_is_resumed_by_its_channels() -> None:
    """Exact names with their positions first, then the pattern; at the end the names are given back."""
    asks = subscription_requests({"trades.*": 0}, {"trades.A": ("e1", 7), "prices.A": ("e1", 9)}, again=False)
    assert asks == [
        SubscriptionRequest(kind="subscribe", names=["trades.A"], since={"trades.A": ("e1", 7)}),
        SubscriptionRequest(kind="subscribe", names=["trades.*"]),
        SubscriptionRequest(kind="unsubscribe", names=["trades.A"], is_internal=True),
    ]


def test_channels_that_may_be_subscribed_are_unsubscribed_first() -> None:
    """The relay looks at a position only while the channel is not subscribed."""
    asks = subscription_requests({"trades.A": 0, "trades.B": 0}, {"trades.A": ("e1", 7)}, again=True)
    assert asks == [
        SubscriptionRequest(kind="unsubscribe", names=["trades.A"], is_internal=True),
        SubscriptionRequest(kind="subscribe", names=["trades.A"], since={"trades.A": ("e1", 7)}),
        SubscriptionRequest(kind="subscribe", names=["trades.B"]),
    ]


@settings(deadline=None)
@given(wanted=WANTED, positions=POSITIONS, again=st.booleans())
def test_everything_is_asked_for_within_bounds(
    wanted: dict[str, int], positions: dict[str, tuple[str, int]], again: bool
) -> None:
    """Each wish is asked for once and stays; each position that it takes in is named before it, in legal frames."""
    subscribed: dict[str, int] = {}
    resumed: set[str] = set()
    for ask in subscription_requests(wanted, positions, again=again):
        text = json.dumps({"id": 1} | ask.members())
        assert len(text) <= MAX_FRAME_BYTES
        assert 0 < len(ask.names) <= MAX_CHANNELS_A_FRAME
        frame = parse_client_frame(text)
        if isinstance(frame, Unsubscribe):
            for name in frame.channels:
                subscribed.pop(name, None)
            continue
        assert isinstance(frame, Subscribe)
        for name in frame.channels:
            assert name not in subscribed
            if name in frame.since:
                assert not any(covers(other, name) for other in subscribed)  # else it would not be looked at
                resumed.add(name)
            subscribed[name] = frame.interval_ms
    assert subscribed == wanted
    assert resumed == {name for name in positions if any(covers(wish, name) for wish in wanted)}


def test_the_longest_frame_fits() -> None:
    """Names of 64 bytes with positions in long epochs stay within what the relay reads."""
    names = [f"trades.{number:057d}" for number in range(200)]
    at = dict.fromkeys(names, ("e" * 36, 2**53))
    for ask in subscription_requests(dict.fromkeys(names, 1000), at, again=True):
        assert len(json.dumps({"id": 10**9} | ask.members())) <= MAX_FRAME_BYTES
