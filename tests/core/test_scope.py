"""Scopes: a request is reduced to what is granted, and never grows."""

from hypothesis import given
from hypothesis import strategies as st

from relay.core.patterns import is_channel, is_pattern
from relay.core.scope import MAX_CHANNELS, Scope

segments = st.sampled_from(["a", "b", "*"])
patterns = st.builds(
    lambda front, last: ".".join([*front, last]),
    st.lists(segments, max_size=2),
    st.sampled_from(["a", "b", "*", ">"]),
)
scopes = st.builds(lambda items: Scope(tuple(items)), st.lists(patterns, max_size=4))
channels = st.builds(".".join, st.lists(st.sampled_from("abc"), min_size=1, max_size=4))


def test_cut_keeps_order_and_says_everything_once() -> None:
    """Each requested channel is granted or rejected, once, in the order of the request."""
    scope = Scope(("prices.>", "fx.EUR"))
    asked = ["prices.B", "orders.1", "prices.A", "prices.B", "fx.EUR", "orders.1", "fx.*"]
    assert scope.split(asked) == (("prices.B", "prices.A", "fx.EUR"), ("orders.1", "fx.*"))


def test_malformed_is_never_allowed() -> None:
    """Even a scope of all channels does not grant a malformed name."""
    everything = Scope((">",))
    assert everything.allows("a.b")
    assert not any(
        everything.allows(text) for text in ("", "a..b", "a b", "prices.\u00e9", "a" * 65, "a.>.b")
    )


def test_an_empty_scope_allows_nothing() -> None:
    """Without a pattern there is nothing to lie inside of."""
    assert not Scope(()).allows("a")
    assert Scope(()).split(["a", "b"]) == ((), ("a", "b"))


@given(scopes, st.lists(patterns | st.text(max_size=6), max_size=8), channels)
def test_cut_never_widens(scope: Scope, asked: list[str], channel: str) -> None:
    """A channel inside the granted part is inside the scope, and inside what was asked for."""
    granted, rejected = scope.split(asked)
    assert sorted({*granted, *rejected}) == sorted(set(asked))
    if Scope(granted).allows(channel):
        assert scope.allows(channel)
        assert Scope(tuple(asked)).allows(channel)


def test_a_wide_request_is_cut_to_the_grant() -> None:
    """The common part is granted, after what is granted as it is; the requests that lost something are named."""
    scope = Scope(("prices.BTC-USD", "fx.*", "fx.EUR"))
    assert scope.cut(["prices.>", "fx.GBP", ">", "orders.1", "not a pattern"]) == (
        ("fx.GBP", "prices.BTC-USD", "fx.*"),
        ("prices.>", ">", "orders.1", "not a pattern"),
    )


def test_a_cut_request_fits_in_a_token() -> None:
    """Many crossing patterns make at most 32, and what was asked for by its name has room before them."""
    scope = Scope(("b.>", *(f"*.{index}" for index in range(32))))
    granted, cut = scope.cut([*(f"a{index}.*" for index in range(31)), "b.name"])
    assert (len(granted), granted[0], len(cut)) == (32, "b.name", 31)


@given(scopes, st.lists(patterns | st.text(max_size=6), max_size=8), channels)
def test_a_cut_is_exactly_what_both_have(scope: Scope, asked: list[str], channel: str) -> None:
    """A channel is granted if the scope grants it and it was asked for, and not otherwise."""
    granted, cut = scope.cut(asked)
    both = scope.allows(channel) and Scope(tuple(name for name in asked if is_pattern(name))).allows(channel)
    assert Scope(granted).allows(channel) == both or len(granted) == MAX_CHANNELS
    assert cut == scope.split(asked)[1]


@given(scopes, scopes, channels)
def test_intersection_is_inside_both(one: Scope, other: Scope, channel: str) -> None:
    """Nothing comes out of an intersection that either side does not grant."""
    assert is_channel(channel)
    if one.intersect(other).allows(channel):
        assert one.allows(channel)
        assert other.allows(channel)


@given(scopes, scopes, channels)
def test_intersection_keeps_exact_channels(one: Scope, other: Scope, channel: str) -> None:
    """A channel that one side names exactly and the other grants stays."""
    named = Scope((channel, *one.patterns))
    assert named.intersect(other).allows(channel) == other.allows(channel)


@given(scopes)
def test_the_intersection_of_a_scope_with_itself_is_the_scope(scope: Scope) -> None:
    """A scope loses nothing against itself."""
    assert set(scope.intersect(scope).patterns) == set(scope.patterns)


def test_crossing_patterns_are_left_out() -> None:
    """Both grant a.b, and the intersection still has nothing: too little is the documented side to err on."""
    assert Scope(("a.*",)).intersect(Scope(("*.b",))).patterns == ()
