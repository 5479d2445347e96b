"""The turnstile: order, a few a turn, and nobody waits for who has given up."""

import asyncio
from collections import Counter
from functools import partial

from relay.net.admission import A_TURN, Turnstile


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


async def test_who_comes_alone_does_not_wait() -> None:
    """The first few go through without giving the loop a turn; so does who comes when they are long gone."""
    turnstile, turns = Turnstile(), Turns()
    for _ in range(A_TURN):
        await turnstile.enter()
    assert turns.now == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    began = turns.now
    await turnstile.enter()
    assert turns.now == began
    turns.open = False


async def test_a_crowd_enters_in_order_a_few_a_turn() -> None:
    """Nobody overtakes, and no turn of the loop has more of them than it should."""
    turnstile, turns = Turnstile(), Turns()
    entered: list[tuple[int, int]] = []

    async def come(number: int) -> None:
        await turnstile.enter()
        entered.append((number, turns.now))

    await asyncio.gather(*(come(number) for number in range(10 * A_TURN)))
    turns.open = False
    assert [number for number, _ in entered] == list(range(10 * A_TURN))
    assert max(Counter(turn for _, turn in entered).values()) == A_TURN


async def test_who_gives_up_keeps_nobody_waiting() -> None:
    """The places of those who left are given to those behind them."""
    turnstile = Turnstile()
    crowd = [asyncio.create_task(turnstile.enter()) for _ in range(10 * A_TURN)]
    await asyncio.sleep(0)
    for task in crowd[A_TURN:-1]:
        task.cancel()
    async with asyncio.timeout(10):
        await crowd[-1]
    results = await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 9 * A_TURN - 1


async def test_who_is_ahead_leaves_room_for_the_others() -> None:
    """A crowd that has its tokens goes before one that wants some, and leaves it a place in each turn."""
    turnstile, turns = Turnstile(), Turns()
    entered: list[tuple[bool, int]] = []

    async def come(*, ahead: bool) -> None:
        await turnstile.enter(ahead=ahead)
        entered.append((ahead, turns.now))

    for _ in range(A_TURN):  # the room of this turn is taken
        await turnstile.enter()
    others = [asyncio.create_task(come(ahead=False)) for _ in range(5 * A_TURN)]
    await asyncio.sleep(0)
    await asyncio.gather(*(come(ahead=True) for _ in range(3 * (A_TURN - 1))), *others)
    turns.open = False
    by_turn = Counter(turn for _, turn in entered)
    ahead_by_turn = Counter(turn for ahead, turn in entered if ahead)
    assert max(by_turn.values()) == A_TURN
    assert list(ahead_by_turn.values()) == [A_TURN - 1] * 3


async def test_at_the_door_only_a_few_are_called_a_turn() -> None:
    """Callbacks come in order; one that finds nobody leaves its room to the next."""
    door, turns = Turnstile(2), Turns()
    called: list[tuple[int, int]] = []

    def call(number: int) -> bool:
        called.append((number, turns.now))
        return number % 2 == 0

    for number in range(12):
        door.let_in(partial(call, number))
    for _ in range(12):
        await asyncio.sleep(0)
    turns.open = False
    assert [number for number, _ in called] == list(range(12))
    there = Counter(turn for number, turn in called if number % 2 == 0)
    assert set(there.values()) == {2}
