"""The turnstile: order, a few a turn, and nobody waits for who has given up."""

import asyncio
from collections import Counter

from relay.turnstile import A_TURN, Turnstile


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
