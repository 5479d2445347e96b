"""The shards of a cluster: which slot each has, and which channel belongs to it."""

import pytest

from relay.engine.shards import SHARDS, SLOTS, place, shard_names, slot_of


@pytest.mark.parametrize("masters", range(1, SHARDS + 1))
@pytest.mark.parametrize("kind", ["t", "j", "w", "p"])
def test_masters_with_equal_parts_have_equally_many_shards(kind: str, masters: int) -> None:
    """No master has two more than another one: three have 5, 6 and 5."""
    counts = [0] * masters
    for name in shard_names(kind, SHARDS):
        counts[slot_of(name) * masters // SLOTS] += 1
    assert sum(counts) == SHARDS
    assert max(counts) - min(counts) <= 1


def test_the_places_are_the_same_on_every_node_and_in_every_release() -> None:
    """Another place would be another numbering of the channel, and a token could be used once at each."""
    assert shard_names("t", 1) == ("t.0",)
    assert slot_of("foo") == 12182  # as CLUSTER KEYSLOT says
    assert [place(name, SHARDS) for name in ("prices.EURUSD", "prices.GBPUSD", "s\ud800")] == [2, 0, 4]
    assert shard_names("t", SHARDS)[:4] == ("t.0-341", "t.1-156", "t.2-423", "t.3-71")
    assert {place(f"prices.{number}", SHARDS) for number in range(200)} == set(range(SHARDS))
