"""The admission queue: the order, the limit in each turn, and callers that are cancelled."""

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Any

import pytest

from relay.net.admission import (
    GIVES_UP_S,
    MAX_RETRY_AFTER_S,
    REQUESTS_PER_TURN,
    SERVED_WITHIN_S,
    STARTED_PER_S,
    AdmissionQueue,
    LoadShedder,
    PacedRequests,
    Presence,
)


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


def waiting(count: int) -> AdmissionQueue:
    """Return a queue in which so much work waits, as long as the event loop does not turn."""
    queue = AdmissionQueue(1)
    for _ in range(count + 1):
        queue.submit(lambda: True)
    return queue


@pytest.mark.parametrize(
    ("accepting", "admitting", "waited_s", "is_refused"),
    [
        (0, 0, 0.0, False),
        (0, STARTED_PER_S * SERVED_WITHIN_S - 100, 0.0, False),
        (0, STARTED_PER_S * SERVED_WITHIN_S + 100, 0.0, True),
        (STARTED_PER_S, STARTED_PER_S * (SERVED_WITHIN_S - 1) + 100, 0.0, True),
        (0, 0, SERVED_WITHIN_S + 0.1, True),
        (STARTED_PER_S, 0, SERVED_WITHIN_S - 0.9, True),
        (STARTED_PER_S, 0, SERVED_WITHIN_S - 1.1, False),
    ],
)
async def test_a_request_is_refused_if_it_can_not_be_started_in_time(
    accepting: float, admitting: float, waited_s: float, is_refused: bool
) -> None:
    """The time that it has waited counts, and so do all queues that are still before it."""
    accept_queue, admission_queue = waiting(int(accepting)), waiting(int(admitting))
    shedder = LoadShedder(accept_queue=accept_queue, admission_queue=admission_queue)
    arrived = asyncio.get_running_loop().time() - waited_s
    found = shedder.retry_after_s(arrived, accept_queue, admission_queue)
    assert (found is not None) == is_refused
    assert shedder.refused == is_refused


@pytest.mark.parametrize(("waited_s", "is_refused"), [(SERVED_WITHIN_S + 1, False), (GIVES_UP_S + 0.1, True)])
async def test_a_request_whose_turn_has_come_is_served_if_its_client_still_waits(
    waited_s: float, is_refused: bool
) -> None:
    """It has waited, and to send it away would leave its place empty."""
    shedder = LoadShedder(accept_queue=AdmissionQueue(), admission_queue=waiting(100))
    arrived = asyncio.get_running_loop().time() - waited_s
    assert (shedder.retry_after_s(arrived) is not None) == is_refused


async def test_refused_clients_come_back_at_the_rate_of_the_queues() -> None:
    """Each of them is told another time, from the middle of the queue on, and no time is endless."""
    queue = waiting(5000)
    queue.per_s = 500.0
    shedder = LoadShedder(accept_queue=AdmissionQueue(), admission_queue=queue)
    now = asyncio.get_running_loop().time()
    told = [shedder.retry_after_s(now, queue) or 0.0 for _ in range(1000)]
    assert told[0] == pytest.approx(5.0, abs=0.5)
    assert told[-1] - told[0] == pytest.approx(999 / 500, abs=0.5)
    for _ in range(100_000):
        last = shedder.retry_after_s(now, queue) or 0.0
    assert MAX_RETRY_AFTER_S / 2 <= last <= MAX_RETRY_AFTER_S


async def test_the_rate_of_a_queue_is_that_of_its_turns() -> None:
    """It is measured while work waits, here for 0.4 s in which each start takes a hundredth, and then forgotten."""
    queue, left, done = AdmissionQueue(1), 40, asyncio.Event()
    measured = STARTED_PER_S

    def work() -> bool:
        nonlocal left, measured
        left -= 1
        measured = min(measured, queue.per_s)
        if not left:
            done.set()
        until = time.monotonic() + 0.01
        while time.monotonic() < until:
            pass
        return True

    for _ in range(left):
        queue.submit(work)
    await done.wait()
    assert measured < 0.9 * STARTED_PER_S
    await asyncio.sleep(0)
    assert queue.per_s == STARTED_PER_S


async def test_nothing_is_done_for_a_client_that_has_gone() -> None:
    """Its request leaves the admission queue, and the application is not called."""
    called: list[bool] = []

    async def app(*_arguments: object) -> None:
        called.append(True)

    queue = AdmissionQueue()
    shedder = LoadShedder(accept_queue=AdmissionQueue(), admission_queue=queue)
    paced = PacedRequests(app, shedder=shedder, refuse=lambda _seconds: app)
    presences = [Presence() for _ in range(2 * REQUESTS_PER_TURN)]
    scopes: list[dict[str, Any]] = [{"type": "http", "state": {"presence": one}} for one in presences]
    requests = [asyncio.create_task(paced(scope, None, None)) for scope in scopes]  # type: ignore[arg-type]  # unused
    presences[-1].gone = True
    await asyncio.gather(*requests)
    assert len(called) == 2 * REQUESTS_PER_TURN - 1
