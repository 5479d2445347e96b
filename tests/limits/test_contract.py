"""What every adapter of the rate limits' port keeps: sliding windows, refusals that cost nothing, waits that hold."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.limits.base import RequestCounts
from relay.limits.memory import MemoryCounts

Make = Callable[[str, Callable[[], float]], RequestCounts]

ADAPTERS: dict[str, Make] = {"memory": lambda rate, clock: MemoryCounts(rate, clock=clock)}
"""Makes the counts of a limit from its rate and a clock."""

pytestmark = pytest.mark.parametrize("adapter", ADAPTERS)


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def allowed(adapter: str, rate: str, times: Sequence[float]) -> list[float]:
    """Return those of the times at which a request is allowed."""
    clock = Clock()
    counts = ADAPTERS[adapter](rate, clock)
    found = []
    for at in times:
        clock.now = at
        if not await counts.hit("key"):
            found.append(at)
    return found


async def test_a_window_has_the_limit_s_number_of_requests(adapter: str) -> None:
    """That many are allowed at once, no more in that window, and then little by little."""
    assert await allowed(adapter, "3/minute", [0, 1, 2, 3, 59]) == [0, 1, 2]
    assert await allowed(adapter, "3/minute", [0, 1, 2, 61, 62, 63]) == [0, 1, 2, 61]
    assert await allowed(adapter, "3/minute", [0, 1, 2, 121, 122, 123, 124]) == [0, 1, 2, 121, 122, 123]


async def test_a_window_begins_with_the_first_request(adapter: str) -> None:
    """Not at the full minute: the next window of each key begins at another time."""
    assert await allowed(adapter, "1/minute", [59.5, 60.5, 119, 120]) == [59.5, 120]


@given(amount=st.integers(1, 20), gaps=st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=200))
async def test_a_rate_holds_however_requests_are_spread(adapter: str, amount: int, gaps: list[float]) -> None:
    """No minute has twice the limit, and three minutes have at most four times the limit."""
    times = [sum(gaps[:index]) for index in range(len(gaps))]
    found = await allowed(adapter, f"{amount}/minute", times)
    for start in found:
        assert sum(start <= at < start + 60 for at in found) < 2 * amount + 1
        assert sum(start <= at < start + 180 for at in found) <= 4 * amount + 1


async def test_a_refused_request_is_told_to_wait(adapter: str) -> None:
    """At least a second and at most one window; after one window more requests are allowed."""
    clock = Clock()
    counts = ADAPTERS[adapter]("2/minute", clock)
    assert [await counts.hit("key"), await counts.hit("key")] == [0.0, 0.0]
    for _ in range(5):
        assert 1.0 <= await counts.hit("key") <= 60.0
    clock.now += 60.0 + 30.0
    assert await counts.hit("key") == 0.0, "refused requests were not counted"


async def test_keys_do_not_influence_each_other(adapter: str) -> None:
    """The limit of one key is not the limit of another one."""
    counts = ADAPTERS[adapter]("1/hour", Clock())
    assert await counts.hit("one") == 0.0
    assert await counts.hit("one") > 0.0
    assert await counts.hit("two") == 0.0


async def test_what_is_given_back_was_not_counted(adapter: str) -> None:
    """A request that is given back leaves room for another one, in its window and after it; more is never given."""
    clock = Clock()
    counts = ADAPTERS[adapter]("2/minute", clock)
    await counts.give_back("key")
    assert [await counts.hit("key"), await counts.hit("key")] == [0.0, 0.0]
    await counts.give_back("key")
    await counts.give_back("other")
    assert await counts.hit("key") == 0.0
    assert await counts.hit("key") > 0.0
    clock.now += 60.0
    assert await counts.hit("key") > 0.0, "the two of the window before still count in full"
    for _ in range(5):
        await counts.give_back("key")
    assert [await counts.hit("key"), await counts.hit("key")] == [0.0, 0.0]
    assert await counts.hit("key") > 0.0
