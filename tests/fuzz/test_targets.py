"""Each parser over its seeds, what was found before, and bytes that hypothesis makes of them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, WORDS


@pytest.mark.parametrize("name", list(TARGETS))
def test_seeds_are_read_or_refused(name: str) -> None:
    """Good inputs, and those that once raised something else than what is declared."""
    for seed in (*TARGETS[name].seeds, b""):
        TARGETS[name].feed(seed)


def mutated(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Make inputs like a seed: pieces of it cut out, and words or bytes put in."""
    piece = st.sampled_from(WORDS) | st.binary(max_size=4)
    edit = st.tuples(st.integers(0, 1 << 12), st.integers(0, 8), piece)

    def apply(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for place, length, new in edits:
            at = place % (len(seed) + 1)
            seed = seed[:at] + new + seed[at + length :]
        return seed

    return st.builds(apply, st.sampled_from(seeds), st.lists(edit, min_size=1, max_size=6))


@pytest.mark.parametrize("name", list(TARGETS))
def test_nothing_raises_but_what_is_declared(name: str) -> None:
    """A short look; `python -m tests.fuzz` looks for as long as one likes."""
    target = TARGETS[name]

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(tuple(target.seeds)) | st.binary(max_size=200))
    def look(data: bytes) -> None:
        target.feed(data)

    look()
