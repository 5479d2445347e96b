"""The admission queue: a concurrency limit for each turn of the event loop, so that a burst does not delay prices.

When a market opens, thousands of browsers ask for a token and connect within a second. All of their requests are ready
in the same turn of the loop, and each takes half a millisecond. With 50 requests in one turn, prices were 0.2 s old.
So each turn starts a few of them, in the order in which they came. Other work of the loop runs between two turns. A
request that comes alone does not wait.

The relay has four queues: requests and handshakes, first reads (accept pacing), frames of clients, and the ends of
connections.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

REQUESTS_PER_TURN = 3
"""Requests and handshakes started in one turn: under 2 ms of work, as long as a slice of prices. With one in each
turn, the turns themselves would cost a third of the throughput."""

FIRST_READS_PER_TURN = 4
"""Accept pacing: connections whose first bytes are read in one turn. To read and parse them takes 0.1 ms each, and a
thousand connections can be ready in one turn."""

FRAMES_PER_TURN = 16
"""Frames of clients handled in one turn, if each takes at most `FRAME_S`. One that takes longer uses more places."""
FRAME_S = 0.00025
"""Seconds for one place of `FRAMES_PER_TURN`: 4 ms in one turn, and one frame more. The largest frame takes 4 ms."""

CLOSED_PER_TURN = 20
"""Steps of ending a connection in one turn, 10 to 40 µs each. A connection has up to five: its close frame is read, it
leaves the hub, its audit event is written, its memory is freed. Thousands end at once when a proxy restarts."""


class AdmissionQueue:
    """A queue that starts at most `per_turn` pieces of work in one turn of the loop. Create it on the running loop.

    Work with priority comes from a client that already has a token. It is started first, but one place of each turn is
    left for work without priority. Without priority, 15,000 token requests were started before the first
    handshake, and by then the first tokens had expired.
    """

    def __init__(self, per_turn: int = REQUESTS_PER_TURN) -> None:
        self._loop = asyncio.get_running_loop()
        self._with_priority: deque[Callable[[], bool]] = deque()
        self._without_priority: deque[Callable[[], bool]] = deque()
        self._per_turn = per_turn
        self._room = per_turn
        self._scheduled = False

    async def enter(self, *, priority: bool = False) -> None:
        """Wait for a turn that has room. A caller that is cancelled uses no room."""
        if self._reserve_room():
            return
        admitted = self._loop.create_future()
        self._append(partial(_admit, admitted), priority=priority)
        await admitted

    def submit(self, call: Callable[[], bool], *, priority: bool = False) -> None:
        """Call `call` in a turn that has room, at once if this turn has. It returns False if it used no room."""
        if not self._reserve_room():
            self._append(call, priority=priority)
        elif not call():
            self._room += 1

    def use(self, places: int) -> None:
        """Use more places of this turn: the work that was let in took longer than one place is for."""
        self._room = max(0, self._room - places)

    def _append(self, call: Callable[[], bool], *, priority: bool) -> None:
        (self._with_priority if priority else self._without_priority).append(call)

    def _reserve_room(self) -> bool:
        """Reserve a place in this turn. Return False if none is left."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_turn)
        if not self._room:
            return False
        self._room -= 1
        return True

    def _run_turn(self) -> None:
        self._room = self._per_turn
        try:
            while self._room and (self._with_priority or self._without_priority):
                is_last = self._room == 1 and self._without_priority
                queue = self._with_priority if self._with_priority and not is_last else self._without_priority
                if queue.popleft()():
                    self._room -= 1
        finally:  # a call that raises does not stop the queue
            self._scheduled = self._room < self._per_turn or bool(
                self._without_priority or self._with_priority
            )
            if self._scheduled:
                self._loop.call_soon(self._run_turn)  # runs after the work that this turn has started


def _admit(admitted: "asyncio.Future[None]") -> bool:
    if admitted.done():  # its caller was cancelled
        return False
    admitted.set_result(None)
    return True


_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class PacedRequests:
    """ASGI middleware: each HTTP request waits in an admission queue before the application gets it."""

    def __init__(
        self,
        app: Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]],
        *,
        admission_queue: AdmissionQueue,
    ) -> None:
        self._app = app
        self._admission_queue = admission_queue

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Wait for a turn, then call the application."""
        if scope["type"] == "http":
            await self._admission_queue.enter()
        await self._app(scope, receive, send)
