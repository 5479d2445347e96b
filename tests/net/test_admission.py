"""The admission queue: the order, the limit in each turn, and callers that are cancelled."""

import asyncio
from collections import Counter
from functools import partial

from relay.net.admission import REQUESTS_PER_TURN, AdmissionQueue


class Turns:
    """Counts the turns of the event loop while it is open."""

    def __init__(self) -> None:
        self.now = 0
        self.open = True
        self._count()

    def _count(self) -> None:
        self.now += 1
        if self.open:
            asyncio.get_running_loop().call_soon(self._count)


async def test_a_single_caller_does_not_wait() -> None:
    """The first callers go through in the same turn of the loop, and so does a caller that comes alone later."""
    admission_queue, turns = AdmissionQueue(), Turns()
    for _ in range(REQUESTS_PER_TURN):
        await admission_queue.enter()
    assert turns.now == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    began = turns.now
    await admission_queue.enter()
    assert turns.now == began
    turns.open = False


async def test_many_callers_enter_in_order_and_a_few_in_each_turn() -> None:
    """No caller overtakes another one, and no turn of the loop admits more than the limit."""
    admission_queue, turns = AdmissionQueue(), Turns()
    entered: list[tuple[int, int]] = []

    async def come(number: int) -> None:
        await admission_queue.enter()
        entered.append((number, turns.now))

    await asyncio.gather(*(come(number) for number in range(10 * REQUESTS_PER_TURN)))
    turns.open = False
    assert [number for number, _ in entered] == list(range(10 * REQUESTS_PER_TURN))
    assert max(Counter(turn for _, turn in entered).values()) == REQUESTS_PER_TURN


async def test_a_cancelled_caller_uses_no_room() -> None:
    """The places of cancelled callers go to the callers after them."""
    admission_queue = AdmissionQueue()
    crowd = [asyncio.create_task(admission_queue.enter()) for _ in range(10 * REQUESTS_PER_TURN)]
    await asyncio.sleep(0)
    for task in crowd[REQUESTS_PER_TURN:-1]:
        task.cancel()
    async with asyncio.timeout(10):
        await crowd[-1]
    results = await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 9 * REQUESTS_PER_TURN - 1


async def test_priority_leaves_one_place_in_each_turn() -> None:
    """Callers with priority go first, and each turn admits one caller without priority."""
    admission_queue, turns = AdmissionQueue(), Turns()
    entered: list[tuple[bool, int]] = []

    async def come(*, priority: bool) -> None:
        await admission_queue.enter(priority=priority)
        entered.append((priority, turns.now))

    for _ in range(REQUESTS_PER_TURN):  # the room of this turn is taken
        await admission_queue.enter()
    others = [asyncio.create_task(come(priority=False)) for _ in range(5 * REQUESTS_PER_TURN)]
    await asyncio.sleep(0)
    await asyncio.gather(*(come(priority=True) for _ in range(3 * (REQUESTS_PER_TURN - 1))), *others)
    turns.open = False
    by_turn = Counter(turn for _, turn in entered)
    priority_by_turn = Counter(turn for priority, turn in entered if priority)
    assert max(by_turn.values()) == REQUESTS_PER_TURN
    assert list(priority_by_turn.values()) == [REQUESTS_PER_TURN - 1] * 3


async def test_submitted_calls_run_in_order_and_a_few_in_each_turn() -> None:
    """A call that returns False leaves its room to the next call."""
    queue, turns = AdmissionQueue(2), Turns()
    called: list[tuple[int, int]] = []

    def call(number: int) -> bool:
        called.append((number, turns.now))
        return number % 2 == 0

    for number in range(12):
        queue.submit(partial(call, number))
    for _ in range(12):
        await asyncio.sleep(0)
    turns.open = False
    assert [number for number, _ in called] == list(range(12))
    there = Counter(turn for number, turn in called if number % 2 == 0)
    assert set(there.values()) == {2}
