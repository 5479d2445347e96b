"""Claims of tokens, each with the place of its connection, in the shard of its session.

Claims go in batches to one script. The claim of a token that was issued before the engine's present life is refused,
and its client may try again with a new token: the old server may have known that it was used.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from relay.core.errors import Reason, UnavailableError
from relay.core.tokens import MAX_LIFETIME_S
from relay.engine.batches import Batches
from relay.engine.connection import RefusedError
from relay.engine.eviction import Eviction
from relay.engine.line import Line
from relay.engine.options import EngineOptions
from relay.engine.places import SURE_AFTER_S, EnginePlaces, PlacesOf, place_text
from relay.engine.pulse import Pulses
from relay.engine.scripts import script
from relay.engine.shards import place as place_of
from relay.engine.tasks import close_all
from relay.state.base import NoPlaceError, Place

ANSWER_WITHIN_S = 2.0
"""Seconds that a claim may take before the gate answers 503. Clients do not wait longer."""
_NEXT = b"n"
"""The answer to a claim that the script left to its next call. The first one of a call is never left."""
_RETRY = {
    b"l": "The engine lost data or was replaced: this token may have been used before. Its client needs a new one.",
    b"c": "The clocks of this node and of the engine differ by more than a second.",
}


@dataclass(frozen=True, slots=True)
class _Claim:
    jti: str
    issued_at: float
    place: str = ""
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))


class ClaimShard:
    """The claims and the places of the sessions of a shard. The arguments are those of `EngineClaims`."""

    def __init__(
        self,
        options: EngineOptions,
        name: str,
        *,
        tell: Callable[[Sequence[str]], Awaitable[None]],
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._line = Line(options, name, name="claims", answer_within_s=ANSWER_WITHIN_S)
        self._prefix = options.key(name, "j:")
        self.batches: Batches[_Claim, Sequence[bytes]] = Batches(
            self._claim, name="claims", answer_within_s=ANSWER_WITHIN_S, failed=_unavailable
        )
        self.places = EnginePlaces(
            options,
            self._line,
            submit_leave=lambda text: self.batches.submit(_Claim("", 0, text, nonce="")),
            tell=tell,
            clock=clock,
            steady=steady,
        )

    @property
    def restarts(self) -> int:
        """How often a task failed and was started again."""
        return sum(part.task.restarts for part in (self._line, self.batches, self.places))

    async def begin(self) -> None:
        """Begin the life of the claims now, and not with the first token that somebody uses."""
        await self._line.call(script("claim"), self.places.keys, self._head())

    async def claim(self, jti: str, issued_at: float, place: Place | None) -> bool:
        """See `EngineClaims.claim`."""
        claim = _Claim(jti, issued_at, "" if place is None else place_text(place))
        answer, *replaced = await self._answer(claim)
        if answer == b"o" and place is not None:
            began = time.monotonic()
            await asyncio.sleep(SURE_AFTER_S)
            claim = _Claim(jti, issued_at, place_text(place, heard_within_s=time.monotonic() - began))
            answer, *replaced = await self._answer(claim)
        if answer in _RETRY:
            raise _unavailable(_RETRY[answer])
        if answer in (b"f", b"o"):
            raise NoPlaceError
        if replaced and place is not None:
            self.places.replaced(place.session, replaced)
        return answer == b"1"

    async def _answer(self, claim: _Claim) -> Sequence[bytes]:
        until = time.monotonic() + ANSWER_WITHIN_S
        while (answer := await self.batches.submit(claim))[0] == _NEXT:
            if time.monotonic() > until:
                raise _unavailable("Too many connections of full sessions were asked for at once.")
        return answer

    async def aclose(self) -> None:
        """Close the connection."""
        await close_all(self.batches.aclose, self._line.aclose)

    def _head(self) -> list[str | float]:
        return [*self.places.head(), self._prefix]

    async def _claim(self, claims: Sequence[_Claim]) -> Sequence[Sequence[bytes]]:
        arguments = self._head()
        for one in claims:
            arguments += [one.jti, one.nonce, one.issued_at, one.place]
        try:
            generation, *answers = await self._line.call(script("claim"), self.places.keys, arguments)
        except RefusedError as error:
            raise _unavailable(str(error)) from None
        self.places.seen(generation)
        return [answer.split(b" ") for answer in answers]


class EngineClaims:
    """Uses tokens up, and counts the connections of sessions: the `Places` of this node. Close it with `aclose`.

    `tell` writes replaced connections to the control log.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        tell: Callable[[Sequence[str]], Awaitable[None]],
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self.shards = [
            ClaimShard(options, name, tell=tell, clock=clock, steady=steady) for name in options.shards("j")
        ]

    @property
    def restarts(self) -> int:
        """How often a task failed and was started again."""
        return sum(shard.restarts for shard in self.shards)

    @property
    def writes(self) -> Pulses:
        """The signs of life that the engine has stored."""
        return Pulses([shard.places.writes for shard in self.shards])

    @property
    def evictions(self) -> Sequence[Eviction]:
        """Whether the servers of used tokens may evict them."""
        return [shard.places.eviction for shard in self.shards]

    @property
    def waiting(self) -> int:
        """The number of claims that were not sent yet."""
        return sum(len(shard.batches) for shard in self.shards)

    def connect(self, open_places: PlacesOf, on_replaced: Callable[[str, str], bool]) -> None:
        """Count the connections of this node from now on. See `EnginePlaces` for the arguments."""
        for shard in self.shards:
            shard.places.open_places = partial(self._places_in, shard, open_places)
            shard.places.on_replaced = on_replaced

    async def begin(self) -> None:
        """Begin the life of the claims.

        Raises:
            UnavailableError: if the engine does not answer.
        """
        await asyncio.gather(*(shard.begin() for shard in self.shards))

    async def claim(
        self, jti: str, *, expires_at: float, issued_at: float | None = None, place: Place | None = None
    ) -> bool:
        """See `State.claim`."""
        issued = expires_at - MAX_LIFETIME_S if issued_at is None else issued_at
        return await self._shard(jti if place is None else place.session).claim(jti, issued, place)

    def leave(self, session: str, connection: str) -> None:
        """See `Places.leave`."""
        self._shard(session).places.leave(session, connection)

    def accept(self, text: str) -> None:
        """Take an entry of the control log: a connection of some node was replaced."""
        self.shards[0].places.accept(text)

    async def aclose(self) -> None:
        """Close the connections."""
        tasks = [shard.places.task.aclose for shard in self.shards]
        await close_all(*tasks, self._say_goodbye, *(shard.aclose for shard in self.shards))

    async def _say_goodbye(self) -> None:
        await asyncio.gather(*(shard.places.say_goodbye() for shard in self.shards))

    def _places_in(
        self, shard: ClaimShard, open_places: PlacesOf, size: int
    ) -> Iterator[Sequence[tuple[str, str, float]]]:
        for part in open_places(size):
            if own := [place for place in part if self._shard(place[0]) is shard]:
                yield own

    def _shard(self, session: str) -> ClaimShard:
        return self.shards[place_of(session, len(self.shards))]


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError(Reason.STATE_UNAVAILABLE, detail, setting="engine.url")
