"""What a subscriber wants, and how it is put into a URL and frames."""

from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.client.wishes import INTERVALS_MS, URL_CHARS, Wishes
from relay.core.errors import ConfigurationError, MalformedError

SEGMENT = st.text("ABCabc019_=^/:~+-", min_size=1, max_size=20)
NAMES = st.lists(SEGMENT.map(lambda text: f"prices.{text}"), min_size=0, max_size=300, unique=True)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.sampled_from(INTERVALS_MS)), max_size=4))
def test_the_url_and_the_rest_are_everything_once(groups: list[tuple[list[str], int]]) -> None:
    """No wish is lost between the URL and what is left for frames, none is in both, and the URL stays short."""
    wishes = Wishes()
    wanted: dict[str, int] = {}
    for names, interval_ms in groups:
        wishes.add(names, interval_ms)
        wanted |= dict.fromkeys(names, interval_ms)
    query, asked = wishes.query()
    assert len(query) < URL_CHARS + 40
    said = list(wishes.missing(asked).items())
    if query:
        fields = parse_qs(query, strict_parsing=True)
        said += [(name, int(fields["interval_ms"][0])) for name in fields["channels"][0].split(",")]
    assert sorted(said) == sorted(wanted.items())


def test_a_changed_interval_is_asked_for_again() -> None:
    """Who changes the interval during a handshake gets the new one."""
    wishes = Wishes()
    wishes.add(["prices.A"], 0)
    _, asked = wishes.query()
    wishes.add(["prices.A"], 100)
    assert wishes.missing(asked) == {"prices.A": 100}


def test_patterns_cover_channels() -> None:
    """A channel is wanted by its own name or by any pattern."""
    wishes = Wishes()
    wishes.add(["prices.*", "depth.A"], 0)
    assert wishes.covers("prices.A")
    assert wishes.covers("depth.A")
    assert not wishes.covers("depth.B")
    assert wishes.remove(["prices.*", "never.wanted"]) == ["prices.*"]
    assert not wishes.covers("prices.A")


def test_bad_wishes_are_refused_whole() -> None:
    """A bad name or interval is refused before anything is wanted."""
    wishes = Wishes()
    with pytest.raises(MalformedError, match="not a channel"):
        wishes.add(["prices.A", "no channel"], 0)
    with pytest.raises(ConfigurationError, match="interval_ms"):
        wishes.add(["prices.A"], 77)
    assert wishes.query() == ("", {})


def test_what_can_be_resumed_is_not_in_the_url() -> None:
    """The URL has no words for a position: channels that have one, and patterns around them, go in frames."""
    wishes = Wishes()
    wishes.add(["trades.A", "trades.*", "trades.B", "other.>"], 0)
    query, asked = wishes.query({"trades.A": ("e", 1)})
    assert asked == {"trades.B": 0, "other.>": 0}
    assert "trades.A" not in query
    assert wishes.missing(asked) == {"trades.A": 0, "trades.*": 0}
