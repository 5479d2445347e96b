"""The places of a session's connections over several nodes, and this node's sign of life.

A place belongs to a connection of a node (`lua/claim.lua`). It counts while its node was heard of in the last ten
seconds: each node tells the engine twice a second that it lives. So one short call stands for all of its connections,
and the places of a node that was killed are free soon after. The place itself is kept for a quarter of an hour, and
written again each five minutes, and at once if the engine may have lost it.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import structlog

from relay.core.errors import UnavailableError
from relay.engine.connection import RefusedError
from relay.engine.eviction import ASK_EVERY_S, Eviction
from relay.engine.line import Line
from relay.engine.options import EngineOptions
from relay.engine.pulse import Pulse
from relay.engine.scripts import script
from relay.engine.tasks import LastingTask
from relay.state.base import Place

BEAT_S = 0.5
HEARD_WITHIN_S = 10.0
"""Seconds without a sign of life after which the connections of a node don't count."""
SURE_AFTER_S = 2.0
"""Seconds after which a connection is refused for good, if other nodes that have the session's places were heard of in
them. They may have been killed a moment ago, and a client that was refused does not come again."""
_WRITE_AGAIN_S = 300.0
_PER_CALL = 64
_FAREWELL_WITHIN_S = 0.5

log = structlog.get_logger("relay.engine")

PlacesOf = Callable[[int], Iterable[Sequence[tuple[str, str, float]]]]
"""Returns the places of this node in parts of about a size: session, connection, and when it was opened."""


class EnginePlaces:
    """What this node tells the engine of its connections. Close it with `aclose`.

    `submit_leave` queues the end of a place after the claims that wait, and returns its future. `tell` writes replaced
    connections to the control log. `open_places` returns the places of this node. `on_replaced` is called with the
    session and the id of a connection whose place another one has taken; it returns False if that is a connection of
    another node.
    """

    def __init__(
        self,
        options: EngineOptions,
        line: Line,
        *,
        submit_leave: Callable[[str], "asyncio.Future[Sequence[bytes]]"],
        tell: Callable[[Sequence[str]], Awaitable[None]],
        clock: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.open_places: PlacesOf = lambda _size: ()
        self.on_replaced: Callable[[str, str], bool] = lambda _session, _connection: False
        self.node = secrets.token_hex(6)
        self.generation = 0
        self.keys = [options.key(line.shard, "e"), options.key(line.shard, "n")]
        self.prefix = options.key(line.shard, "c:")
        self.writes = Pulse(steady)
        """The signs of life that the engine has stored."""
        self.eviction = Eviction()
        self._ask_due = 0.0
        self._line = line
        self._submit_leave = submit_leave
        self._tell = tell
        self._clock = clock
        self._steady = steady
        self._written_generation = -1
        self._write_due = 0.0
        self._left: set[str] = set()  # places whose end could not be told
        self._replaced: list[str] = []  # connections of other nodes that these have to end
        self._wake = asyncio.Event()
        self.task = LastingTask(self._run, name="places")

    def head(self) -> list[str | float]:
        """Return the first arguments of `claim.lua` and `beat.lua`."""
        return [self.generation, secrets.token_hex(6), self._clock(), self.node, self.prefix]

    def seen(self, generation: bytes | int) -> None:
        """Take note of the generation of the claims. In a new one the engine knows no places."""
        self.generation = max(self.generation, int(generation))
        if self.generation != self._written_generation:
            self._wake.set()

    def leave(self, session: str, connection: str) -> None:
        """See `Places.leave`. It is told again until the engine has answered."""
        self._leave(f"{connection} {session}")

    def replaced(self, session: str, connections: Iterable[bytes]) -> None:
        """End connections whose places were taken: here, or through the control log on the node that has them."""
        for connection in (one.decode() for one in connections):
            if not self.on_replaced(session, connection):
                self._replaced.append(f"{connection} {session}")
                self._wake.set()

    def accept(self, text: str) -> None:
        """Take an entry of the control log: a connection of some node was replaced."""
        connection, _, session = text.partition(" ")
        self.on_replaced(session, connection)

    async def say_goodbye(self) -> None:
        """Tell the engine that this node has no connections any more. The task must have ended."""
        try:
            async with asyncio.timeout(_FAREWELL_WITHIN_S):
                await self._line.call(script("beat"), self.keys, [*self.head(), "bye"])
        except (TimeoutError, UnavailableError, RefusedError) as error:
            log.info("the engine was not told that this node stops", error=str(error))

    def _leave(self, text: str) -> None:
        try:
            self._submit_leave(text).add_done_callback(partial(self._was_told, text))
        except UnavailableError:
            self._left.add(text)

    def _was_told(self, text: str, told: "asyncio.Future[Sequence[bytes]]") -> None:
        if told.cancelled() or told.exception() is not None:
            self._left.add(text)

    async def _run(self) -> None:
        while True:
            try:
                await self._beat()
            except (UnavailableError, RefusedError) as error:  # the line has logged it
                self.writes.fault = f"The engine stores nothing, so no token can be used. {error}"
            else:
                with contextlib.suppress(UnavailableError, RefusedError):  # it is asked again
                    await self._ask_about_eviction()
            with contextlib.suppress(UnavailableError, RefusedError):  # they stay in the list
                await self._tell_replaced()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._wake.wait()
            self._wake.clear()

    async def _tell_replaced(self) -> None:
        while self._replaced:
            told = self._replaced[:_PER_CALL]
            await self._tell(told)
            del self._replaced[: len(told)]

    async def _beat(self) -> None:
        """Give a sign of life, and write what the engine may not know."""
        is_known = await self._send(())
        left, self._left = self._left, set()
        for text in left:
            self._leave(text)
        if self.generation == self._written_generation and is_known and self._steady() < self._write_due:
            return
        generation = self.generation
        for part in self.open_places(_PER_CALL):
            await self._send(part)
        self._written_generation = generation
        self._write_due = self._steady() + _WRITE_AGAIN_S

    async def _ask_about_eviction(self) -> None:
        if self._steady() < self._ask_due:
            return
        self._ask_due = self._steady() + ASK_EVERY_S
        self.eviction.told(await self._line.read("INFO", "memory", "stats"))

    async def _send(self, places: Sequence[tuple[str, str, float]]) -> bool:
        """Give a sign of life with some places. False: the engine did not know of this node, or had forgotten it."""
        arguments: list[str | float] = [*self.head(), "alive"]
        for place in places:
            arguments += place
        generation, is_known, *replaced = await self._line.call(script("beat"), self.keys, arguments)
        self.generation = max(self.generation, int(generation))
        self.writes.beat()
        for index in replaced:
            session, connection, _ = places[int(index)]
            self.on_replaced(session, connection)
        return bool(is_known)


def place_text(place: Place, *, heard_within_s: float = HEARD_WITHIN_S) -> str:
    """Return a place as `claim.lua` reads it."""
    mode = "r" if place.replaces else "f"
    return f"{place.most} {mode} {heard_within_s:g} {place.connection} {place.session}"
