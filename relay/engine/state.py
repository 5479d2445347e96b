"""The state store of several nodes: revocations in the engine, and the claims of `claims.py`.

Revocations are also kept in memory, because the gate looks them up for each connection and must not wait. Every node
reads them from the control log. When the engine has lost data, each node writes back what it knows.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from relay.core.clock_floor import ClockFloor
from relay.core.errors import Reason, UnavailableError
from relay.engine.claims import EngineClaims
from relay.engine.clock_offset import ClockOffset
from relay.engine.connection import RefusedError
from relay.engine.line import Line
from relay.engine.log_reader import Fields, LogReader, Position
from relay.engine.options import CONTROL, EngineOptions
from relay.engine.pulse import GAP_S, Pulse
from relay.engine.scripts import script
from relay.engine.tasks import close_all
from relay.engine.texts import to_text
from relay.state.base import Place

_ANSWER_WITHIN_S = 2.0
_LOG_ENTRIES = 10_000
"""Revocations in the control log. A node that was away for longer reads all of them."""
_PER_CALL = 64
_PAST_FOR_S = 86_400.0
"""Seconds for which the clock must be past the end of a revocation before it is forgotten."""
_PURGE_EVERY_S = 60.0


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
        self.claims = EngineClaims(options, tell=self._tell_replaced, clock=clock, steady=steady)
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
                await state.claims.begin()
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
        return self.claims.waiting

    @property
    def silent_s(self) -> float:
        """Seconds since the reader of the control log had an answer."""
        return self.pulse.silent_s

    @property
    def is_blind(self) -> bool:
        """Whether this node may not know of a revocation, because the engine did not answer for a second."""
        return self.pulse.silent_s > GAP_S

    @property
    def restarts(self) -> int:
        """How often a task of this store failed and was started again."""
        return self._line.task.restarts + self._reader.task.restarts + self.claims.restarts

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
        return await self.claims.claim(jti, expires_at=expires_at, issued_at=issued_at, place=place)

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
        await close_all(self._reader.aclose, self.claims.aclose, self._line.aclose)

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
                self._learn(to_text(target), float(at), float(until))
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

    async def _tell_replaced(self, connections: Sequence[str]) -> None:
        head: list[str | float] = [self._generation, secrets.token_hex(6), _LOG_ENTRIES, self.log_format]
        life = [self._control_keys[0], self._control_keys[2]]
        await self._line.call(script("replaced"), life, [*head, *connections])

    def _accept(self, generation: int, _number: int, fields: Fields) -> None:
        self._generation = max(self._generation, generation)
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            if name == b"revoked":
                target, at, until = to_text(value).rsplit(" ", 2)
                self._learn(target, float(at), float(until))
            elif name == b"replaced":
                self.claims.accept(to_text(value))

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
