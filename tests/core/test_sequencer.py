"""The sequencer: which publications are dropped, and how much is remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import sequencer
from relay.core.errors import MalformedError, Reason
from relay.core.sequencer import KEYS_A_CHANNEL, Drop, Sequencer


def number(
    sequencer: Sequencer,
    channel: str = "a",
    version: int | None = None,
    version_epoch: int | None = None,
    key: str | None = None,
) -> tuple[int, Drop | None]:
    """Number one publication."""
    return sequencer.number(channel, version=version, version_epoch=version_epoch, key=key)


def test_numbers_count_from_one_on_each_channel() -> None:
    """Without versions and keys nothing is dropped."""
    made = Sequencer(max_channels=10)
    assert [number(made), number(made), number(made, "b")] == [(1, None), (2, None), (1, None)]
    assert (made.seq("a"), made.seq("b"), made.seq("c")) == (2, 1, 0)


def test_what_is_not_newer_is_stale() -> None:
    """The same version once more, too: that is what a second publisher sends."""
    made = Sequencer(max_channels=10)
    assert number(made, version=5) == (1, None)
    assert number(made, version=5) == (1, Drop.STALE)
    assert number(made, version=4) == (1, Drop.STALE)
    assert number(made, version=6) == (2, None)
    assert number(made, "b", version=1) == (1, None)


def test_a_higher_version_epoch_begins_anew() -> None:
    """A lower one is outdated. No epoch is epoch 0."""
    made = Sequencer(max_channels=10)
    assert number(made, version=10**12) == (1, None)
    assert number(made, version=1) == (1, Drop.STALE)
    assert number(made, version=1, version_epoch=1) == (2, None)
    assert number(made, version=10**12) == (2, Drop.STALE)
    assert number(made, version=2, version_epoch=1) == (3, None)


def test_a_publication_without_a_version_leaves_the_versions_alone() -> None:
    """It is taken, and what comes later must still be newer than the last version."""
    made = Sequencer(max_channels=10)
    assert number(made, version=5) == (1, None)
    assert number(made) == (2, None)
    assert number(made, version=5) == (2, Drop.STALE)


def test_a_known_key_gets_the_first_ones_number() -> None:
    """It is found after any number of later messages, and on its own channel only."""
    made = Sequencer(max_channels=10)
    assert number(made, key="k") == (1, None)
    assert number(made, key="l") == (2, None)
    assert number(made, key="k") == (1, Drop.DUPLICATE)
    assert number(made, "b", key="k") == (1, None)


def test_a_stale_message_leaves_no_key() -> None:
    """It was not published; the same key may come with a newer version."""
    made = Sequencer(max_channels=10)
    number(made, version=5)
    assert number(made, version=4, key="k") == (1, Drop.STALE)
    assert number(made, version=6, key="k") == (2, None)


def test_keys_are_bounded_on_each_channel() -> None:
    """The newest are remembered."""
    made = Sequencer(max_channels=10)
    for index in range(KEYS_A_CHANNEL + 1):
        number(made, key=str(index))
    assert number(made, key="1") == (2, Drop.DUPLICATE)
    assert number(made, key="0") == (KEYS_A_CHANNEL + 2, None)


def test_keys_are_bounded_over_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel with new keys forgets its own oldest ones. Those of other channels stay."""
    monkeypatch.setattr(sequencer, "KEYS", 4)
    made = Sequencer(max_channels=10)
    for key in ("1", "2"):
        number(made, "quiet", key=key)
    for index in range(10):
        number(made, "busy", key=str(index))
    assert number(made, "quiet", key="1") == (1, Drop.DUPLICATE)
    assert number(made, "busy", key="9") == (10, Drop.DUPLICATE)
    assert number(made, "busy", key="0") == (11, None)


def test_a_channel_above_the_limit_is_refused_by_the_settings_name() -> None:
    """The sentence names the setting."""
    made = Sequencer(max_channels=1)
    number(made)
    with pytest.raises(MalformedError, match=r"limits\.channels") as caught:
        number(made, "b")
    assert caught.value.reason is Reason.CHANNELS_TOO_MANY
    assert number(made) == (2, None)


def test_a_reset_forgets_versions_and_keys_and_no_number() -> None:
    """Subscribers notice nothing. A channel without a publication can't be reset."""
    made = Sequencer(max_channels=10)
    number(made, version=10**12, key="k")
    assert made.reset("a")
    assert not made.reset("b")
    assert number(made, version=1, key="k") == (2, None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.none() | st.integers(0, 5),
            st.integers(0, 2),
            st.none() | st.sampled_from("xyz"),
        )
    )
)
def test_any_publications_are_numbered_without_gaps(
    sent: list[tuple[str, int | None, int, str | None]],
) -> None:
    """Against lists: numbers without gaps, versions that only grow, and no key twice."""
    made = Sequencer(max_channels=10)
    kept: dict[str, list[tuple[tuple[int, int] | None, str | None]]] = {"a": [], "b": []}
    for channel, version, version_epoch, key in sent:
        place = None if version is None else (version_epoch, version)
        before = kept[channel]
        keys = [known for _, known in before]
        got = number(made, channel, version, None if version is None else version_epoch, key)
        if key is not None and key in keys:
            assert got == (keys.index(key) + 1, Drop.DUPLICATE)
        elif place is not None and any(known is not None and known >= place for known, _ in before):
            assert got == (len(before), Drop.STALE)
        else:
            before.append((place, key))
            assert got == (len(before), None)
