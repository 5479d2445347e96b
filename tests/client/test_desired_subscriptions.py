"""What a subscriber wants, and how it is put into a URL and frames."""

from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.client.subscriptions import INTERVALS_MS, URL_CHARS, DesiredSubscriptions
from relay.core.errors import ConfigurationError, MalformedError

SEGMENT = st.text("ABCabc019_=^/:~+@&!-", min_size=1, max_size=20)
NAMES = st.lists(SEGMENT.map(lambda text: f"prices.{text}"), min_size=0, max_size=300, unique=True)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.sampled_from(INTERVALS_MS)), max_size=4))
def test_the_url_and_the_rest_are_everything_once(groups: list[tuple[list[str], int]]) -> None:
    """No wish is lost between the URL and what is left for frames, none is in both, and the URL stays short."""
    desired = DesiredSubscriptions()
    wanted: dict[str, int] = {}
    for names, interval_ms in groups:
        desired.add(names, interval_ms)
        wanted |= dict.fromkeys(names, interval_ms)
    query, asked = desired.query()
    assert len(query) < URL_CHARS + 40
    said = list(desired.missing(asked).items())
    if query:
        fields = parse_qs(query, strict_parsing=True)
        said += [(name, int(fields["interval_ms"][0])) for name in fields["channels"][0].split(",")]
    assert sorted(said) == sorted(wanted.items())


def test_a_changed_interval_is_asked_for_again() -> None:
    """Who changes the interval during a handshake gets the new one."""
    desired = DesiredSubscriptions()
    desired.add(["prices.A"], 0)
    _, asked = desired.query()
    desired.add(["prices.A"], 100)
    assert desired.missing(asked) == {"prices.A": 100}


def test_patterns_cover_channels() -> None:
    """A channel is wanted by its own name or by any pattern."""
    desired = DesiredSubscriptions()
    desired.add(["prices.*", "depth.A"], 0)
    assert desired.covers("prices.A")
    assert desired.covers("depth.A")
    assert not desired.covers("depth.B")
    assert desired.remove(["prices.*", "never.wanted"]) == ["prices.*"]
    assert not desired.covers("prices.A")


def test_bad_wishes_are_refused_whole() -> None:
    """A bad name or interval is refused before anything is wanted."""
    desired = DesiredSubscriptions()
    with pytest.raises(MalformedError, match="not a channel"):
        desired.add(["prices.A", "no channel"], 0)
    with pytest.raises(ConfigurationError, match="interval_ms"):
        desired.add(["prices.A"], 77)
    assert desired.query() == ("", {})


def test_resumable_channels_are_not_in_the_url() -> None:
    """The URL has no words for a position: channels that have one, and patterns around them, go in frames."""
    desired = DesiredSubscriptions()
    desired.add(["trades.A", "trades.*", "trades.B", "other.>"], 0)
    query, asked = desired.query({"trades.A": ("e", 1)})
    assert asked == {"trades.B": 0, "other.>": 0}
    assert "trades.A" not in query
    assert desired.missing(asked) == {"trades.A": 0, "trades.*": 0}
