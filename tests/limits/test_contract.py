"""What every adapter of the rate limits' port keeps: sliding windows, refusals that cost nothing, waits that hold."""

import random
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine import limits
from relay.engine.limits import EngineLimits
from relay.limits.base import RequestCounts
from relay.limits.memory import MemoryCounts
from tests.support.engines import ENGINES, WITHIN_S, Engines

Make = Callable[[str], RequestCounts]
"""Makes the counts of a limit from its rate, empty."""


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the counts."""
    return Clock()


@pytest.fixture(params=["memory", *ENGINES])
async def make(
    request: pytest.FixtureRequest, clock: Clock, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Make]:
    """One adapter after the other."""
    monkeypatch.setattr(limits, "ANSWER_WITHIN_S", WITHIN_S)  # on a busy machine too
    if request.param == "memory":
        yield lambda rate: MemoryCounts(rate, clock=clock)
        return
    shared = EngineLimits(engines.options(request.param), clock=clock)
    names = iter(range(1_000_000))
    yield lambda rate: shared.counts(f"limit {next(names)}", rate)
    assert not shared.alone
    await shared.aclose()


async def allowed(make: Make, clock: Clock, rate: str, times: Sequence[float]) -> list[float]:
    """Return those of the times at which a request is allowed."""
    counts = make(rate)
    found = []
    for at in times:
        clock.now = at
        if not await counts.hit("key"):
            found.append(at)
    return found


async def test_a_window_has_the_limit_s_number_of_requests(make: Make, clock: Clock) -> None:
    """That many are allowed at once, no more in that window, and then little by little."""
    assert await allowed(make, clock, "3/minute", [0, 1, 2, 3, 59]) == [0, 1, 2]
    assert await allowed(make, clock, "3/minute", [0, 1, 2, 61, 62, 63]) == [0, 1, 2, 61]
    assert await allowed(make, clock, "3/minute", [0, 1, 2, 121, 122, 123, 124]) == [0, 1, 2, 121, 122, 123]


async def test_a_window_begins_with_the_first_request(make: Make, clock: Clock) -> None:
    """Not at the full minute: the next window of each key begins at another time."""
    assert await allowed(make, clock, "1/minute", [59.5, 60.5, 119, 120]) == [59.5, 120]


@given(amount=st.integers(1, 20), gaps=st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=200))
async def test_a_rate_holds_however_requests_are_spread(amount: int, gaps: list[float]) -> None:
    """No minute has twice the limit, and three minutes have at most four times the limit."""
    clock = Clock()
    times = [sum(gaps[:index]) for index in range(len(gaps))]
    found = await allowed(lambda rate: MemoryCounts(rate, clock=clock), clock, f"{amount}/minute", times)
    for start in found:
        assert sum(start <= at < start + 60 for at in found) < 2 * amount + 1
        assert sum(start <= at < start + 180 for at in found) <= 4 * amount + 1


async def test_every_adapter_has_the_same_rule(make: Make, clock: Clock) -> None:
    """Requests and gifts at random times are allowed and refused as in memory."""
    for amount in (1, 3, 7):
        dice = random.Random(amount)
        counts, same = make(f"{amount}/minute"), MemoryCounts(f"{amount}/minute", clock=clock)
        for _ in range(100):
            clock.now += dice.choice([0, 1, 7, 31, 63])
            if dice.random() < 0.2:
                await counts.give_back("key")
                await same.give_back("key")
            else:
                assert bool(await counts.hit("key")) == bool(await same.hit("key"))


async def test_a_refused_request_is_told_to_wait(make: Make, clock: Clock) -> None:
    """At least a second and at most one window; after one window more requests are allowed."""
    counts = make("2/minute")
    assert [await counts.hit("key"), await counts.hit("key")] == [0.0, 0.0]
    for _ in range(5):
        assert 1.0 <= await counts.hit("key") <= 60.0
    clock.now += 60.0 + 30.0
    assert await counts.hit("key") == 0.0, "refused requests were not counted"


async def test_keys_do_not_influence_each_other(make: Make, clock: Clock) -> None:
    """The limit of one key is not the limit of another one."""
    counts = make("1/hour")
    assert await counts.hit("one") == 0.0
    assert await counts.hit("one") > 0.0
    assert await counts.hit("two") == 0.0


async def test_what_is_given_back_was_not_counted(make: Make, clock: Clock) -> None:
    """A request that is given back leaves room for another one, in its window and after it; more is never given."""
    counts = make("2/minute")
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
