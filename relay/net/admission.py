"""Lets a few newcomers through in each turn of the event loop, so that a burst of them does not hold up prices.

When a market opens, thousands ask for a token and connect within a second. All that have arrived are ready in the
same turn of the loop, at half a millisecond each, and whoever writes prices waits until they are through: seen with
50 at a time, prices were 0.2 s old. Here they wait for their turn instead, first come, first served; between two turns
the loop does what else is due. A newcomer who is alone does not wait.

Who has a token goes ahead of those who want one, and leaves them a quarter of the room at least. Without that, 15,000
who asked for tokens at once stood in front of the first who had got theirs, until those had expired.

Even to read what they send costs too much for one turn, 0.1 ms each and a thousand of them ready: so there is another
turnstile at the door, where a connection's first bytes wait until somebody looks at them (`Turnstile.let_in`).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

A_TURN = 3
"""Let through in one turn: under 2 ms of work, as long as a slice of prices. One by one, the turns themselves would
cost a third of the throughput."""

AT_THE_DOOR = 4
"""First bytes that are read in one turn: half a millisecond."""

AT_THE_EXIT = 20
"""Ends of connections that are written up in one turn: thousands end at once when a proxy in front restarts."""


class Turnstile:
    """One for all who do dear work on this loop before they are known. Made on the loop."""

    def __init__(self, a_turn: int = A_TURN) -> None:
        self._loop = asyncio.get_running_loop()
        self._ahead: deque[Callable[[], bool]] = deque()
        self._waiting: deque[Callable[[], bool]] = deque()
        self._a_turn = a_turn
        self._room = a_turn
        self._turning = False

    async def enter(self, *, ahead: bool = False) -> None:
        """Wait for a turn with room. Whoever gives up meanwhile keeps nobody else from entering."""
        if self._takes_room():
            return
        place = self._loop.create_future()
        (self._ahead if ahead else self._waiting).append(partial(_wake, place))
        await place

    def let_in(self, call: Callable[[], bool], *, ahead: bool = False) -> None:
        """Call `call` in a turn with room, maybe now. It tells whether it did anything; if not, its room is free."""
        if not self._takes_room():
            (self._ahead if ahead else self._waiting).append(call)
        elif not call():
            self._room += 1

    def _takes_room(self) -> bool:
        """Take a place in this turn, if one is left."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
        if not self._room:
            return False
        self._room -= 1
        return True

    def _turn(self) -> None:
        self._room = self._a_turn
        try:
            while self._room and (self._ahead or self._waiting):
                last = self._room == 1 and self._waiting
                queue = self._ahead if self._ahead and not last else self._waiting
                if queue.popleft()():
                    self._room -= 1
        finally:  # one who fails keeps nobody behind it
            self._turning = self._room < self._a_turn or bool(self._waiting or self._ahead)
            if self._turning:
                self._loop.call_soon(self._turn)  # runs behind those whom we have just let in


def _wake(place: "asyncio.Future[None]") -> bool:
    if place.done():  # given up
        return False
    place.set_result(None)
    return True
