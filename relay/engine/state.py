"""The state store of several nodes: claims and revocations in the engine.

Claims go in batches to one script. The claim of a token that was issued before the engine's present life is refused,
and its client may try again with a new token: the old server may have known that it was used.

A claim takes a place in the session of its token, too (`places.py`).

Revocations are also kept in memory, because the gate looks them up for each connection and must not wait. Every node
reads them from the control log. When the engine has lost data, each node writes back what it knows.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from relay.core.clock_floor import ClockFloor
from relay.core.errors import Reason, UnavailableError
from relay.core.tokens import MAX_LIFETIME_S
from relay.engine.batches import Batches
from relay.engine.clock_offset import ClockOffset
from relay.engine.connection import RefusedError
from relay.engine.line import Line
from relay.engine.log_reader import Fields, LogReader, Position
from relay.engine.options import CONTROL, EngineOptions
from relay.engine.places import SURE_AFTER_S, EnginePlaces, place_text
from relay.engine.pulse import GAP_S, Pulse
from relay.engine.scripts import script
from relay.state.base import NoPlaceError, Place

_ANSWER_WITHIN_S = 2.0
"""Seconds that a claim may take before the gate answers 503. Clients do not wait longer."""
_LOG_ENTRIES = 10_000
"""Revocations in the control log. A node that was away for longer reads all of them."""
_PER_CALL = 64
_PAST_FOR_S = 86_400.0
"""Seconds for which the clock must be past the end of a revocation before it is forgotten."""
_PURGE_EVERY_S = 60.0
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


class EngineState:
    """A `State` in Redis or Valkey. Make it with `open` and close it with `aclose`.

    `on_revoked` is called with the key of each target that another node has revoked, and of each that this node has
    revoked while the engine did not answer. `clock` is the wall clock, `steady` the monotonic one.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        on_revoked: Callable[[str], object] = lambda _key: None,
        known: Mapping[str, tuple[float, float]] | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_revoked = on_revoked
        self.log_format = options.formats.oldest
        """The format of the entries that this node writes into the control log."""
        self._options = options
        self._clock = clock
        self._line = Line(options, CONTROL, name="state", answer_within_s=_ANSWER_WITHIN_S)
        self.pulse = Pulse(steady)
        self.offset = ClockOffset(clock)
        self._claims: Batches[_Claim, Sequence[bytes]] = Batches(
            self._claim,
            name="claims",
            answer_within_s=_ANSWER_WITHIN_S,
            failed=_unavailable,
        )
        self.places = EnginePlaces(
            options,
            self._line,
            submit_leave=lambda text: self._claims.submit(_Claim("", 0, text, nonce="")),
            tell=self._tell_replaced,
            clock=clock,
            steady=steady,
        )
        self._claim_prefix = options.key("j.0", "j:")
        self._control_keys = [options.key(CONTROL, name) for name in ("e", "r", "l", "u")]
        self._generation = 0
        self._revoked: dict[str, tuple[float, float]] = dict(known or {})
        self._own: dict[str, int] = {}
        self._started = False
        self._floor = ClockFloor(_PAST_FOR_S)
        self._purge_due = 0.0
        self._reader = LogReader(
            options,
            name="control",
            shard=CONTROL,
            begin=self._begin,
            accept=self._accept,
            pulse=self.pulse,
            offset=self.offset,
        )

    @classmethod
    async def open(
        cls,
        options: EngineOptions,
        *,
        on_revoked: Callable[[str], object] = lambda _key: None,
        known: Mapping[str, tuple[float, float]] | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> "EngineState":
        """Read the revocations, and write those of `known` to the engine: target, then `at` and `until`.

        Raises:
            UnavailableError: if the engine does not answer.
        """
        state = cls(options, on_revoked=on_revoked, known=known, clock=clock, steady=steady)
        try:
            async with asyncio.timeout(5 * _ANSWER_WITHIN_S):
                await state._reader.began()
                # the life of the claims begins now, and not with the first token that somebody uses
                await state._line.call(script("claim"), state.places.keys, state._claim_head())
        except BaseException as error:
            await state.aclose()
            if isinstance(error, TimeoutError):
                raise _unavailable("The engine's revocations could not be read.") from None
            raise
        state._started = True
        return state

    @property
    def waiting(self) -> int:
        """The number of claims that were not sent yet."""
        return len(self._claims)

    @property
    def is_blind(self) -> bool:
        """Whether this node may not know of a revocation, because the engine did not answer for a second."""
        return self.pulse.silent_s > GAP_S

    @property
    def restarts(self) -> int:
        """How often a task of this store failed and was started again."""
        parts = (self._line, self._claims, self._reader, self.places)
        return sum(part.task.restarts for part in parts)

    @property
    def generation(self) -> int:
        """The generation of the control log."""
        return self._generation

    @property
    def resyncs(self) -> int:
        """How often the revocations were read again because something was missed."""
        return self._reader.resyncs

    @property
    def behind(self) -> int:
        """Entries of the control log that this node had not read when it last looked."""
        return self._reader.behind

    async def claim(
        self, jti: str, *, expires_at: float, issued_at: float | None = None, place: Place | None = None
    ) -> bool:
        """See `State.claim`."""
        issued = expires_at - MAX_LIFETIME_S if issued_at is None else issued_at
        claim = _Claim(jti, issued, "" if place is None else place_text(place))
        answer, *replaced = await self._claims.submit(claim)
        if answer == b"o" and place is not None:
            began = time.monotonic()
            await asyncio.sleep(SURE_AFTER_S)
            claim = _Claim(jti, issued, place_text(place, heard_within_s=time.monotonic() - began))
            answer, *replaced = await self._claims.submit(claim)
        if answer in _RETRY:
            raise _unavailable(_RETRY[answer])
        if answer in (b"f", b"o"):
            raise NoPlaceError
        if replaced and place is not None:
            self.places.replaced(place.session, replaced)
        return answer == b"1"

    async def revoke(self, key: str, *, at: float, until: float) -> None:
        """See `State.revoke`."""
        at, until = float(f"{at:.6f}"), float(f"{until:.6f}")  # as they come back
        self._own[key] = self._own.get(key, 0) + 1  # the caller ends the connections of this node itself
        try:
            await self._write([(key, at, until)])
        except (RefusedError, UnavailableError) as error:
            self._learn(key, at, until)
            self.on_revoked(key)  # the caller ends nothing after an error, and this node can
            self._reader.begin_again()  # which writes to the engine what this node knows
            raise _unavailable(
                f"{error} It is in force on this node, which tells the engine later."
            ) from None
        finally:
            self._own[key] -= 1
            if not self._own[key]:
                del self._own[key]
        self._learn(key, at, until)

    def revoked_at(self, key: str) -> float | None:
        """See `State.revoked_at`."""
        entry = self._revoked.get(key)
        return None if entry is None else entry[0]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reader.aclose()
        try:
            await self.places.aclose()
        finally:  # it calls the engine, and may be cancelled
            await self._claims.aclose()
            await self._line.aclose()

    # claims

    def _claim_head(self) -> list[str | float]:
        return [*self.places.head(), self._claim_prefix]

    async def _claim(self, claims: Sequence[_Claim]) -> Sequence[Sequence[bytes]]:
        arguments = self._claim_head()
        for one in claims:
            arguments += [one.jti, one.nonce, one.issued_at, one.place]
        try:
            generation, *answers = await self._line.call(script("claim"), self.places.keys, arguments)
        except RefusedError as error:
            raise _unavailable(str(error)) from None
        self.places.seen(generation)
        return [answer.split(b" ") for answer in answers]

    async def _tell_replaced(self, connections: Sequence[str]) -> None:
        head: list[str | float] = [self._generation, secrets.token_hex(6), _LOG_ENTRIES, self.log_format]
        life = [self._control_keys[0], self._control_keys[2]]
        await self._line.call(script("replaced"), life, [*head, *connections])

    # revocations

    async def _begin(self) -> Position:
        """Read all revocations, and write back those that the engine does not have. Return where the log goes on."""
        life = [self._control_keys[0], self._control_keys[2]]
        generation, number = await self._line.call(
            script("control"), life, [self._generation, secrets.token_hex(6)]
        )
        position = (int(generation), int(number))
        self._generation = max(self._generation, position[0])
        cursor: bytes | int = 0
        while True:
            cursor, pairs = await self._line.read("HSCAN", self._control_keys[1], cursor, "COUNT", 1000)
            for target, value in zip(pairs[::2], pairs[1::2], strict=True):
                at, until = value.split()
                self._learn(target.decode(), float(at), float(until))
            if int(cursor) == 0:
                break
        known = [(target, *times) for target, times in self._revoked.items()]
        for first in range(0, len(known), _PER_CALL):
            await self._write(known[first : first + _PER_CALL])
        return position

    async def _write(self, revocations: Sequence[tuple[str, float, float]]) -> None:
        arguments: list[str | float] = [self._generation, secrets.token_hex(6), _LOG_ENTRIES, self.log_format]
        for key, at, until in revocations:
            arguments += [key, f"{at:.6f}", f"{until:.6f}"]
        generation, _ = await self._line.call(script("revoke"), self._control_keys, arguments)
        self._generation = max(self._generation, int(generation))

    def _accept(self, generation: int, _number: int, fields: Fields) -> None:
        self._generation = max(self._generation, generation)
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            if name == b"revoked":
                target, at, until = value.decode().rsplit(" ", 2)
                self._learn(target, float(at), float(until))
            elif name == b"replaced":
                self.places.accept(value.decode())

    def _learn(self, key: str, at: float, until: float) -> None:
        known_at, known_until = self._revoked.get(key, (0.0, 0.0))
        self._revoked[key] = (max(at, known_at), max(until, known_until))
        if at > known_at and self._started and key not in self._own:
            self.on_revoked(key)
        self._purge()

    def _purge(self) -> None:
        steady = time.monotonic()
        if steady < self._purge_due:
            return
        self._purge_due = steady + _PURGE_EVERY_S
        floor = self._floor.read(self._clock(), steady)
        for key in [key for key, (_, until) in self._revoked.items() if until < floor]:
            del self._revoked[key]


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError(Reason.STATE_UNAVAILABLE, detail, setting="engine.url")
