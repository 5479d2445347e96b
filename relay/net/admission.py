"""The admission queue: a concurrency limit for each turn of the event loop, so that a burst does not delay prices.

When a market opens, thousands of browsers ask for a token and connect within a second. All of their requests are ready
in the same turn of the loop, and each takes half a millisecond. With 50 requests in one turn, prices were 0.2 s old.
So each turn starts a few of them, in the order in which they came. Other work of the loop runs between two turns. A
request that comes alone does not wait.

The relay has four queues: requests and handshakes, first reads (accept pacing), frames of clients, and the ends of
connections.
"""

import asyncio
import math
import secrets
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


SERVED_WITHIN_S = 5.0
"""Seconds from its arrival within which a request must be started. One that would wait longer is refused at once, with
a time to come back: a client gives up after some seconds, and then its place was for nothing."""

GIVES_UP_S = 2 * SERVED_WITHIN_S
"""Seconds after which a client has given up. The project's clients wait for ten."""

STARTED_PER_S = 1000.0
"""Work that a queue starts in a second, until it has been measured. It is more than most machines do: a request that is
let in by mistake waits, but one that is refused by mistake comes back when the machine has been idle for long."""

_MEASURED_EACH_S = 0.1
_MEASURED_OVER_S = 2.0
"""The time constant of the measured rate. In its first second a burst of connections is mostly accepted, and little is
started: a rate of that second alone was a tenth of the real one."""

MAX_RETRY_AFTER_S = 120.0


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
        self.per_s = STARTED_PER_S
        """Work without priority that is started in a second, measured while other work of this kind waits."""
        self._counted_from = 0.0
        self._counted = 0

    @property
    def wait_s(self) -> float:
        """Return for how many seconds new work without priority would wait."""
        return len(self._without_priority) / self.per_s

    async def enter(self, *, priority: bool = False) -> None:
        """Wait for a turn that has room. A caller that is cancelled uses no room."""
        if self._reserve_room():
            return
        admitted = self._loop.create_future()
        self._append(partial(_admit, admitted), priority=priority)
        await admitted

    def submit(self, call: Callable[[], bool], *, priority: bool = False) -> bool:
        """Call `call` in a turn that has room, at once if this turn has. It returns False if it used no room.

        Return whether it waits.
        """
        if not self._reserve_room():
            self._append(call, priority=priority)
            return True
        if not call():
            self._room += 1
        return False

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
        before = len(self._without_priority)
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
            self._measure(before - len(self._without_priority))

    def _measure(self, started: int) -> None:
        """Count work that was started, and compute the rate while work waits."""
        if not self._without_priority:
            self._counted_from, self.per_s = 0.0, STARTED_PER_S
            return
        now = self._loop.time()
        if not self._counted_from:
            self._counted_from, self._counted = now, 0
            return
        self._counted += started
        seconds = now - self._counted_from
        if seconds >= _MEASURED_EACH_S:
            weight = -math.expm1(-seconds / _MEASURED_OVER_S)
            self.per_s = max(1.0, self.per_s + weight * (self._counted / seconds - self.per_s))
            self._counted_from, self._counted = now, 0


def _admit(admitted: "asyncio.Future[None]") -> bool:
    if admitted.done():  # its caller was cancelled
        return False
    admitted.set_result(None)
    return True


class LoadShedder:
    """Decides which requests are refused at once because they could not be started within `SERVED_WITHIN_S`.

    Refused clients are told different times to come back: each gets the next free place at the rate at which the queues
    start requests, from the middle of the present queue on. If the rate was measured too low, they find a short queue
    rather than an idle machine.
    """

    def __init__(self, *, accept_queue: AdmissionQueue, admission_queue: AdmissionQueue) -> None:
        self._loop = asyncio.get_running_loop()
        self.accept_queue = accept_queue
        self.admission_queue = admission_queue
        self.refused = 0
        self._promised_until = 0.0

    def retry_after_s(self, arrived: float, *ahead: AdmissionQueue) -> float | None:
        """Return the seconds after which a request should come back; None: it can be started in time.

        It came at `arrived`, on the loop's clock, and the queues `ahead` are still before it. Without them its turn has
        come, and it is refused only if its client has given up.
        """
        now = self._loop.time()
        allowed_s = SERVED_WITHIN_S if ahead else GIVES_UP_S
        if now - arrived + sum(queue.wait_s for queue in ahead) <= allowed_s:
            return None
        self.refused += 1
        per_s = min(self.accept_queue.per_s, self.admission_queue.per_s)
        earliest = now + self.admission_queue.wait_s / 2
        self._promised_until = max(self._promised_until, earliest) + 1 / per_s
        return min(self._promised_until - now, MAX_RETRY_AFTER_S * (0.5 + secrets.randbelow(500) / 1000))


class Presence:
    """Whether the client of a connection is still there. `BoundedHttp` puts it into a request's state."""

    __slots__ = ("gone",)

    def __init__(self) -> None:
        self.gone = False


_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]


class PacedRequests:
    """ASGI middleware: each HTTP request waits in the admission queue before the application gets it.

    `refuse` makes the answer to a request that can't wait any longer, from the seconds after which to come back. A
    request whose client has gone in the meantime gets no answer, and nothing is done for it.
    """

    def __init__(self, app: _App, *, shedder: LoadShedder, refuse: Callable[[float], _App]) -> None:
        self._app = app
        self._shedder = shedder
        self._refuse = refuse

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Wait for a turn, then call the application."""
        if scope["type"] == "http":
            shedder, state = self._shedder, scope.get("state", {})
            arrived: float = state.get("arrived") or asyncio.get_running_loop().time()
            presence: Presence | None = state.get("presence")
            wait_s = shedder.retry_after_s(arrived, shedder.admission_queue)
            if wait_s is None:
                await shedder.admission_queue.enter()
                if presence is not None and presence.gone:
                    return
                wait_s = shedder.retry_after_s(arrived)
            if wait_s is not None:
                await self._refuse(wait_s)(scope, receive, send)
                return
        await self._app(scope, receive, send)
