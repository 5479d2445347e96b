"""The refresh families of several nodes. See `relay.state.families` for what each call promises.

The rules are in `lua/families.lua`: one script call is one transaction over all nodes. A call whose reply was lost is
sent again, and the script recognizes it, because the ids of families and leases are chosen here.

When the engine has lost data, a lease or a result may be missing. So in a young life the tokens from before get no
lease until every lease of the life before is over. In that time each node writes back what it knows: the results of the
last minutes, which other tabs of a browser may still ask for, and the log-ins that it has ended.
"""

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from relay.core.errors import Reason, UnavailableError
from relay.engine.connection import RefusedError
from relay.engine.line import Line
from relay.engine.options import EngineOptions
from relay.engine.scripts import script
from relay.engine.tasks import LastingTask, close_all
from relay.engine.texts import to_bytes, to_text
from relay.state.families import (
    SPENT_AFTER_S,
    Family,
    Over,
    Redeem,
    Refused,
    Renewal,
    Succeeded,
    Taken,
    Wait,
    Young,
)

_ANSWER_WITHIN_S = 2.0
_TRIES_TO_STORE = 5
"""How often a result is sent to an engine that does not answer, for 2 s each: longer than a failover takes."""
_LOOK_EVERY_S = 1.0
"""Seconds between looks whether the engine has lost data: far fewer than until a lost token is leased again."""
_MAX_RESULTS = 4_096
"""Results that a node can write back, some 3 KB each. 20,000 sessions make as many in three minutes."""
_RESULT_KEPT_S = 2 * SPENT_AFTER_S
_MAX_ENDED = 10_000
"""Ended log-ins that a node can write back, some 1 KB each."""
_MAX_LEASES = 10_000
_PER_RESTORE = 8
"""Families that one call writes back. Each has up to 32 tokens and 32 sessions, with an index of their own."""
_PER_END = 32
"""Families that one call ends: a millisecond of script."""
_UNKNOWN = Family(session="", subject="", logged_in_at=0)

_Row = Sequence[bytes]
"""The fields of a family as the engine has them: name and value in turn."""


@dataclass(frozen=True, slots=True)
class _Lease:
    """In which generation a lease was given, of which family, and how long that is kept."""

    generation: int
    family: Family | None
    keep_s: float


class EngineFamilies:
    """A `Families` in Redis or Valkey. Make it with `open` and close it with `aclose`.

    `lead` returns seconds that are added to the engine's time. Tests use it to let time pass; `clock` must follow.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        clock: Callable[[], float] = time.time,
        lead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._clock = clock
        self._lead = lead
        self._life = options.key("f.0", "e")
        self._prefix = options.key("f.0", "")
        self._generation = 0
        self._leases: OrderedDict[bytes, _Lease] = OrderedDict()
        self._results: OrderedDict[bytes, tuple[float, _Row]] = OrderedDict()
        self._ended: OrderedDict[bytes, _Row] = OrderedDict()
        self._has_lost = asyncio.Event()
        self._line = Line(options, "f.0", name="families", answer_within_s=_ANSWER_WITHIN_S)
        self._watching = LastingTask(self._watch, name="families-life", recover=self._recover)

    @classmethod
    async def open(
        cls,
        options: EngineOptions,
        *,
        clock: Callable[[], float] = time.time,
        lead: Callable[[], float] = lambda: 0.0,
    ) -> "EngineFamilies":
        """Connect, and begin the life of the families' data if the engine has none.

        Raises:
            UnavailableError: if the engine does not answer.
        """
        families = cls(options, clock=clock, lead=lead)
        try:
            await families._call("life")
        except BaseException:
            await families.aclose()
            raise
        return families

    @property
    def restarts(self) -> int:
        """How often a task of this store failed and was started again."""
        return self._line.task.restarts + self._watching.restarts

    async def aclose(self) -> None:
        """Close the connection."""
        await close_all(self._watching.aclose, self._line.aclose)

    async def begin(self, token: bytes, family: Family, *, address: str, keep_s: float) -> None:
        """See `Families.begin`."""
        await self._call("begin", token.hex(), _new_id(), *_about(family), address, keep_s)

    async def find(self, token: bytes) -> Family | None:
        """See `Families.find`."""
        found, *about = await self._call("find", token.hex())
        return _family(about) if found == b"ok" else None

    async def show(self, token: bytes) -> None:
        """See `Families.show`."""
        await self._call("show", token.hex())

    async def take(
        self,
        token: bytes,
        *,
        lease_s: float,
        unconfirmed_s: float,
        keep_s: float,
        is_shown: bool = True,
        young_s: float = 0,
    ) -> Taken:
        """See `Families.take`."""
        lease = secrets.token_bytes(16)
        names = (token.hex(), _new_id(), lease.hex())
        terms = (lease_s, unconfirmed_s, keep_s, "1" if is_shown else "", young_s)
        generation, (outcome, *values) = await self._run("take", *names, *terms)
        match outcome:
            case b"clock":
                raise _unavailable("The clocks of this node and of the engine differ by more than a second.")
            case b"wait":
                return Wait(for_s=int(values[0]) / 1000)
            case b"young":
                return Young()
            case b"refused":
                return Refused(over=Over(values[3].decode()), family=_family(values))
            case b"succeeded":
                sealed, sealed_for, newest, address = values[3:]
                return Succeeded(
                    sealed=sealed,
                    sealed_for=_hash(sealed_for),
                    newest=_hash(newest),
                    family=_family(values),
                    address=address.decode(),
                )
        family = _family(values) if values[3] else None
        self._leases[lease] = _Lease(generation, family, keep_s)
        if len(self._leases) > _MAX_LEASES:
            self._leases.popitem(last=False)
        return Redeem(lease=lease, family=family)

    async def complete(self, token: bytes, lease: bytes, renewal: Renewal) -> bool:
        """See `Families.complete`."""
        found = "" if renewal.family is None else "1"
        result = (renewal.successor.hex(), renewal.sealed, found, *_about(renewal.family or _UNKNOWN))
        arguments = (*self._leased(token, lease, renewal.keep_s), renewal.address, *result)
        tries_left = _TRIES_TO_STORE
        while True:
            try:
                outcome, *rows = await self._call("complete", *arguments)
                break
            except (
                UnavailableError
            ):  # the old token is spent at the backend: this must not be lost in a short outage
                tries_left -= 1
                if not tries_left:
                    raise
        self._keep_result(rows)
        return bool(outcome == b"ok")

    async def release(self, token: bytes, lease: bytes) -> None:
        """See `Families.release`."""
        await self._call("release", token.hex(), lease.hex())
        self._leases.pop(lease, None)

    async def spend(self, token: bytes, lease: bytes) -> None:
        """See `Families.spend`."""
        _, *rows = await self._call("spend", *self._leased(token, lease))
        self._keep_result(rows)

    async def end(self, token: bytes) -> Sequence[str]:
        """See `Families.end`."""
        _, *rows = await self._call("end", token.hex(), _new_id(), _new_id())
        return self._keep_ended(rows)

    async def end_sessions(self, *, session: str = "", subject: str = "") -> Sequence[str]:
        """See `Families.end_sessions`. Of a user with very many log-ins, some are ended after the others."""
        by = to_bytes(f"s:{session}" if session else f"u:{subject}")
        ended: dict[str, None] = {}
        nonce, first = _new_id(), 0
        while True:
            found, *rows = await self._call("end_sessions", by, first, _PER_END, nonce)
            ended |= dict.fromkeys(self._keep_ended(rows))
            first += int(found)
            if int(found) < _PER_END:
                return list(ended)

    # to the engine

    async def _call(self, operation: str, *arguments: bytes | str | float) -> list[Any]:
        """Run an operation of the script and return its answer."""
        return (await self._run(operation, *arguments))[1]

    async def _run(self, operation: str, *arguments: bytes | str | float) -> tuple[int, list[Any]]:
        """Run an operation of the script. Return the generation in which it ran, and its answer."""
        head = (self._generation, secrets.token_hex(6), self._prefix, self._clock(), self._lead())
        try:
            reply = await self._line.call(script("families"), [self._life], [*head, operation, *arguments])
        except RefusedError as error:
            raise _unavailable(str(error)) from None
        generation = int(reply[0])
        if generation > self._generation:
            if self._generation:
                self._has_lost.set()
            self._generation = generation
        return generation, reply[1:]

    def _leased(self, token: bytes, lease: bytes, keep_s: float = 0) -> Sequence[str | bytes | float]:
        """Return the arguments that name a lease, also to an engine that has lost it."""
        given = self._leases.pop(lease, _Lease(self._generation, None, keep_s))
        known = "" if given.family is None else "1"
        about = _about(given.family or _UNKNOWN)
        return (
            *(token.hex(), lease.hex(), given.generation, _new_id(), known, *about),
            max(keep_s, given.keep_s),
        )

    # what is written back when the engine has lost data

    async def _watch(self) -> None:
        """Look whether the engine has lost data, and write back what this node knows."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._has_lost.wait()
            has_lost = self._has_lost.is_set()
            self._has_lost.clear()
            try:
                await (self._restore() if has_lost else self._call("life"))
            except UnavailableError:  # the line has logged it
                if has_lost:
                    self._has_lost.set()
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _recover(self, _error: Exception) -> None:
        self._has_lost.set()  # what could not be written back may be missing

    async def _restore(self) -> None:
        rows = [(id_, row) for id_, (_, row) in self._results.items()] + list(self._ended.items())
        for first in range(0, len(rows), _PER_RESTORE):
            arguments: list[bytes | str | float] = []
            for id_, row in rows[first : first + _PER_RESTORE]:
                arguments += [id_, len(row), *row]
            await self._call("restore", *arguments)

    def _keep_result(self, rows: Sequence[Any]) -> None:
        now = time.monotonic()
        for id_, row in rows:
            self._results.pop(id_, None)
            self._results[id_] = (now, row)
        while self._results:
            oldest, _ = next(iter(self._results.values()))
            if len(self._results) <= _MAX_RESULTS and now - oldest < _RESULT_KEPT_S:
                break
            self._results.popitem(last=False)

    def _keep_ended(self, rows: Sequence[Any]) -> list[str]:
        """Keep ended families, and return the references of their sessions, the newest first."""
        sessions: dict[str, None] = {}
        for id_, row in rows:
            self._results.pop(id_, None)
            self._ended[id_] = row
            if len(self._ended) > _MAX_ENDED:
                self._ended.popitem(last=False)
            fields = dict(zip(row[::2], row[1::2], strict=True))
            of_row = to_text(fields[b"sessions"]).split("\n")
            sessions |= dict.fromkeys(one for one in reversed(of_row) if one)
        return list(sessions)


def _new_id() -> str:
    return secrets.token_hex(8)


def _about(family: Family) -> tuple[bytes, bytes, str]:
    return to_bytes(family.session), to_bytes(family.subject), repr(float(family.logged_in_at))


def _family(values: Sequence[bytes]) -> Family:
    session, subject = map(to_text, values[:2])
    return Family(session=session, subject=subject, logged_in_at=float(values[2]))


def _hash(text: bytes) -> bytes:
    return bytes.fromhex(text.decode())


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError(Reason.STATE_UNAVAILABLE, detail, setting="engine.url")
