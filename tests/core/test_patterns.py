"""Channel names and patterns: which are valid, and which pattern covers which."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import MalformedError
from relay.core.patterns import (
    MAX_CHANNEL_BYTES,
    ChannelIndex,
    check_channel,
    check_pattern,
    covers,
    intersection,
    is_channel,
    is_pattern,
    is_wildcard,
    may_overlap,
)

SEGMENT = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_=^/:~+-@&!")


def looks_like_channel(text: str) -> bool:
    """The same rule, written another way."""
    return len(text) <= MAX_CHANNEL_BYTES and all(part and set(part) <= SEGMENT for part in text.split("."))


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "prices.BTC-USD",
        "M&M",
        "NIFTY1!",
        "btcusdt@trade",
        "EURUSD+",
        "fx.EUR/USD",
        "x.^GSPC",
        "a=b:c~d+e_f",
        "BRK.B",
        "a" * 64,
    ],
)
def test_an_exact_name_is_a_channel_and_a_pattern(name: str) -> None:
    """These are exact channels, and patterns too."""
    assert check_channel(name) == name
    assert check_pattern(name) == name
    assert not is_wildcard(name)


@pytest.mark.parametrize("name", ["*", ">", "a.*", "*.a", "a.>", "*.>", "a.*.b.>"])
def test_a_name_with_a_wildcard_is_a_pattern_and_no_channel(name: str) -> None:
    """These are patterns with a wildcard, and no channels."""
    assert check_pattern(name) == name
    assert is_wildcard(name)
    assert not is_channel(name)


@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            " a",
            "a ",
            "a b",
            "a\n",
            "a\x00",
            "\ufeffa",
            "é",
            "\uff41",
            "a" * 65,
            "a,b",
            "a'b",
            'a"b',
            "a(b)",
            "a;b",
            "a$b",
            "a%b",
            "a#b",
            "a?b",
            "a|b",
        ],
        *[
            ">.a",
            "a.>.b",
            ">>",
            "**",
            "a*",
            "*a",
            "a>",
            "a.b>",
            "a.*b",
            "a.>\n",
            "\ud800",
            "prices/../x%",
            "a\u2028",
        ],
    ],
)
def test_a_malformed_name_is_refused_with_one_sentence(name: str) -> None:
    """These are neither channel nor pattern, and the refusal is one sentence that says what is."""
    for check in (check_channel, check_pattern):
        with pytest.raises(MalformedError, match="segments of letters") as caught:
            check(name)
        assert caught.value.detail.isprintable()


@given(st.text(max_size=80) | st.text(alphabet="ab.*>-", max_size=80))
def test_any_text_is_a_channel_or_malformed(text: str) -> None:
    """Any text is accepted or raises MalformedError, as a second wording of the rule says."""
    assert is_channel(text) == looks_like_channel(text)
    if is_channel(text):
        assert is_pattern(text)
    for check, verdict in ((check_channel, is_channel(text)), (check_pattern, is_pattern(text))):
        if verdict:
            assert check(text) == text
        else:
            with pytest.raises(MalformedError):
                check(text)


def all_patterns() -> list[str]:
    """Every pattern of up to three segments over a, b and the wildcards."""
    found = []
    for length in (1, 2, 3):
        for *front, last in itertools.product("ab*>", repeat=length):
            if ">" not in front:
                found.append(".".join([*front, last]))
    return found


def matched(pattern: str, universe: list[str]) -> frozenset[str]:
    """What a pattern matches, by a regular expression instead of segments."""
    parts = [
        {"*": "[^.]+", ">": r"[^.]+(?:\.[^.]+)*"}.get(part, re.escape(part)) for part in pattern.split(".")
    ]
    expression = re.compile(r"\.".join(parts))
    return frozenset(channel for channel in universe if expression.fullmatch(channel))


def test_a_pattern_covers_another_exactly_if_it_matches_its_channels() -> None:
    """`covers` is exactly "matches at least the same channels", for every pair of short patterns.

    The channels have one segment and one letter more than the patterns, so that `>` and `*` show their limits.
    """
    universe = [
        ".".join(parts) for length in (1, 2, 3, 4) for parts in itertools.product("abc", repeat=length)
    ]
    by_pattern = {pattern: matched(pattern, universe) for pattern in all_patterns()}
    assert len(by_pattern) == 52
    for granted, asked in itertools.product(by_pattern, repeat=2):
        assert covers(granted, asked) == (by_pattern[asked] <= by_pattern[granted]), (granted, asked)
    for granted, channels in by_pattern.items():
        for channel in universe:
            assert covers(granted, channel) == (channel in channels), (granted, channel)


def test_the_intersection_of_two_patterns_matches_the_channels_of_both() -> None:
    """For every pair of short patterns, and a universe in which `>` and `*` show their limits."""
    universe = [
        ".".join(parts) for length in (1, 2, 3, 4) for parts in itertools.product("abc", repeat=length)
    ]
    by_pattern = {pattern: matched(pattern, universe) for pattern in all_patterns()}
    for one, other in itertools.product(by_pattern, repeat=2):
        both = intersection(one, other)
        assert (frozenset() if both is None else matched(both, universe)) == by_pattern[one] & by_pattern[
            other
        ]
        assert may_overlap(one, other) == (both is not None)
        assert both is None or is_pattern(both)


segments_of_any_length = st.text(alphabet="ab", min_size=1, max_size=40) | st.just("*")
long_patterns = st.builds(
    lambda front, last: ".".join([*front, last]),
    st.lists(segments_of_any_length, max_size=3),
    segments_of_any_length | st.just(">"),
).filter(is_pattern)


@given(long_patterns, long_patterns)
def test_an_intersection_is_a_valid_pattern_inside_both(one: str, other: str) -> None:
    """Two patterns whose common channels would be too long for a name have no intersection."""
    both = intersection(one, other)
    if both is not None:
        assert is_pattern(both)
        assert covers(one, both)
        assert covers(other, both)
        assert intersection(other, one) == both


def test_an_intersection_is_not_longer_than_a_name() -> None:
    """No channel of 81 bytes exists, so two patterns that only such a channel matches have nothing in common."""
    assert intersection("a" * 40 + ".*", "*." + "b" * 40) is None
    assert intersection("a" * 30 + ".*", "*." + "b" * 30) == "a" * 30 + "." + "b" * 30


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "a.b", "a.b.c", "b", "b.c", "c.b.a"]))))
def test_an_index_finds_what_was_added_and_not_removed(steps: list[tuple[bool, str]]) -> None:
    """Removals leave the other names, and no empty branches."""
    index: ChannelIndex[str] = ChannelIndex()
    names: set[str] = set()
    for is_added, name in steps:
        if is_added:
            index.add(name, name)
            names.add(name)
        else:
            index.remove(name)
            names.discard(name)
        assert set(index.all()) == names
        for pattern in all_patterns():
            assert set(index.matching(pattern)) == {one for one in names if covers(pattern, one)}
    for name in names:
        index.remove(name)
    assert index.branches == {}


def test_names_that_differ_in_case_are_different_channels() -> None:
    """Two spellings never mean one channel."""
    assert not covers("prices.btc", "prices.BTC")
    assert not covers("Prices.>", "prices.BTC")
