"""The state store of one node: claims and revocations in a SQLite file.

Claims go through a group commit on a thread, so the event loop never waits for the disk.

Revocations are also kept in memory, because the gate looks them up for each connection and must not wait. They are read
from the file at start. Later the thread adds each one after it is on the disk. The event loop only reads. Each access
is one `dict` call, which the GIL makes atomic.

Nothing is deleted because of one reading of the wall clock, which may be wrong for a moment. A claim goes when the
clock has been past its end in every reading of a claim's longest life. A revocation goes when relays have also run with
the file for as long as it was to be kept: the file counts their seconds, on a clock that nobody can set.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.core.clock_floor import ClockFloor
from relay.core.errors import Reason, UnavailableError
from relay.core.tokens import MAX_LIFETIME_S, USED_KEPT_S
from relay.group_commit import GroupCommit
from relay.state.base import Place
from relay.state.sqlite_file import open_file

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS claims (jti TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
DROP INDEX IF EXISTS claims_by_expiry;
CREATE TABLE IF NOT EXISTS revocations (
    target TEXT PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revocation_lives (target TEXT PRIMARY KEY, kept_until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS running (id INTEGER PRIMARY KEY CHECK (id = 1), seconds REAL NOT NULL);
INSERT OR IGNORE INTO running VALUES (1, 0);
INSERT OR IGNORE INTO revocation_lives
    SELECT target, until - at + seconds FROM revocations, running;
CREATE TABLE IF NOT EXISTS audit_heads (
    log TEXT PRIMARY KEY, writer TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL
) WITHOUT ROWID;
COMMIT;
"""
"""The schema is created in a writing transaction, so a read-only file is refused at start and not at the first claim.

Claims have no index by their expiry (earlier files had one). It made each claim half as expensive again. Without it,
the purge reads all claims once a minute: 20 ms for 200,000 of them, on the thread.

`running` has the seconds for which relays have run with this file. `revocation_lives` says up to which of these seconds
a revocation is kept. It is a table of its own, so that an earlier release can use the file too.
"""

_PURGE_EVERY_S = 60
_PAST_FOR_S = MAX_LIFETIME_S + USED_KEPT_S
"""Seconds for which the clock must be past the end of an entry before the entry is deleted. A token can be used for
half a minute, and the clock is read within a minute before its claim. So a token never outlives its claim."""
_MAX_VARIABLES = 999
"""Values that one statement may have in any version of SQLite. Since 3.32 there may be more."""
_ANSWER_WITHIN_S = 2.0
"""Seconds that a claim may take before the gate answers 503. Clients do not wait longer."""


@dataclass(frozen=True, slots=True)
class _Claim:
    jti: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Revocation:
    target: str
    at: float
    until: float
    kept_until: float  # on the clock of `running`


@dataclass(frozen=True, slots=True)
class _Head:
    log: str
    writer: str
    seq: int
    hash: str


_Item = _Claim | _Revocation | _Head


class SqliteState:
    """A `State` in one file. Create it with `open` and close it with `aclose`."""

    def __init__(
        self, database: sqlite3.Connection, *, clock: Callable[[], float], steady: Callable[[], float]
    ) -> None:
        self._database = database
        self._clock = clock
        self._steady = steady
        self._floor = ClockFloor(_PAST_FOR_S)
        self._purge_due = steady()
        ran_s: float
        (ran_s,) = database.execute("SELECT seconds FROM running").fetchone()
        self._ran_from: float = ran_s - steady()
        self._revoked: dict[str, tuple[float, float, float]] = {
            target: (at, until, kept_until)
            for target, at, until, kept_until in database.execute(
                "SELECT target, at, until, kept_until FROM revocations JOIN revocation_lives USING (target)"
            )
        }
        self._writer: GroupCommit[_Item, bool] = GroupCommit(
            self._commit, name="relay-state", answer_within_s=_ANSWER_WITHIN_S
        )

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> "SqliteState":
        """Open or create the file at `path`.

        `clock` returns Unix seconds, and `steady` the seconds of a clock that never goes back. An entry is forgotten
        when it is over by both.

        Raises:
            ConfigurationError: if the file can't be opened or written, is locked, or is not a SQLite file.
        """
        # A commit survives the death of the process (kill -9) without an fsync. Only a power cut can lose the last
        # moments, and those tokens expire within 30 seconds.
        with open_file(path, _SCHEMA, synchronous="NORMAL") as database:
            return cls(database, clock=clock, steady=steady)

    @property
    def revocations(self) -> Mapping[str, tuple[float, float]]:
        """What is revoked now: `at` and `until` of each target. An engine that this node begins to use gets them."""
        return {target: (at, until) for target, (at, until, _) in self._revoked.items()}

    @property
    def waiting(self) -> int:
        """The number of claims and revocations that are not on the disk yet."""
        return self._writer.waiting

    async def claim(
        self, jti: str, *, expires_at: float, issued_at: float | None = None, place: Place | None = None
    ) -> bool:
        """See `State.claim`. The file loses no claim while its process runs, so the time of issue decides nothing."""
        del issued_at, place
        return await self._submit(_Claim(jti, expires_at + USED_KEPT_S))

    async def revoke(self, key: str, *, at: float, until: float) -> None:
        """See `State.revoke`."""
        await self._submit(_Revocation(key, at, until, self._ran_s() + until - at))

    async def keep_head(self, log: Path, writer: str, seq: int, digest: str) -> None:
        """Store the last record of the audit log at `log`, so that a cut log can be detected. See `read_head`.

        Raises:
            UnavailableError: if the store did not answer.
        """
        await self._submit(_Head(str(log), writer, seq, digest))

    def revoked_at(self, key: str) -> float | None:
        """See `State.revoked_at`."""
        entry = self._revoked.get(key)
        return None if entry is None else entry[0]

    async def aclose(self) -> None:
        """Write what is waiting and close the file."""
        await self._writer.aclose()
        self._database.close()

    def _ran_s(self) -> float:
        """Return for how many seconds relays have run with this file."""
        return self._ran_from + self._steady()

    async def _submit(self, item: _Item) -> bool:
        try:
            return await self._writer.submit(item)
        except (sqlite3.Error, TimeoutError, asyncio.QueueFull) as error:
            raise UnavailableError(
                Reason.STATE_UNAVAILABLE, f"The state file did not answer: {error!r}."
            ) from None

    def _commit(self, items: Sequence[_Item]) -> list[bool]:
        """Write `items` in one transaction. This runs on the writer's thread."""
        database = self._database
        self._purge()
        if len(items) == 1:  # a single statement is a transaction
            results = [self._write(items[0])]
            self._remember(items)
            return results
        if self._all_new(items):
            return [True] * len(items)
        database.execute("BEGIN IMMEDIATE")
        try:
            results = [self._write(item) for item in items]
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:  # SQLite rolls back by itself when the disk is full
                database.execute("ROLLBACK")
            raise
        self._remember(items)
        return results

    def _all_new(self, items: Sequence[_Item]) -> bool:
        """Write a batch that has only new claims with one statement. False: it has other items; nothing was written.

        Each statement releases the GIL. To get it back from a busy event loop takes longer than the statement itself,
        so one statement for all claims is much faster than one for each.
        """
        rows = [value for item in items if isinstance(item, _Claim) for value in (item.jti, item.expires_at)]
        if len(rows) < 2 * len(items) or len(rows) > _MAX_VARIABLES:
            return False
        placeholders = ", ".join(["(?, ?)"] * len(items))
        try:
            self._database.execute(f"INSERT INTO claims VALUES {placeholders}", rows)  # noqa: S608  # only placeholders
        except sqlite3.IntegrityError:  # one is not new: SQLite undoes the statement, and each is tried alone
            return False
        return True

    def _remember(self, items: Sequence[_Item]) -> None:
        """Copy revocations that are on the disk now to memory."""
        for item in items:
            if isinstance(item, _Revocation):
                new = (item.at, item.until, item.kept_until)
                at, until, kept_until = self._revoked.get(item.target, new)
                self._revoked[item.target] = (
                    max(at, item.at),
                    max(until, item.until),
                    max(kept_until, item.kept_until),
                )

    def _write(self, item: _Item) -> bool:
        if isinstance(item, _Claim):
            cursor = self._database.execute(
                "INSERT OR IGNORE INTO claims VALUES (?, ?)", (item.jti, item.expires_at)
            )
            return cursor.rowcount == 1
        if isinstance(item, _Head):
            self._database.execute(
                "INSERT OR REPLACE INTO audit_heads VALUES (?, ?, ?, ?)",
                (item.log, item.writer, item.seq, item.hash),
            )
            return True
        # The later values count: otherwise a clock that was set back could lift a revocation. A crash between the two
        # statements leaves a life without a revocation, which does no harm.
        self._database.execute(
            "INSERT INTO revocation_lives VALUES (?, ?) ON CONFLICT (target) "
            "DO UPDATE SET kept_until = max(kept_until, excluded.kept_until)",
            (item.target, item.kept_until),
        )
        self._database.execute(
            "INSERT INTO revocations VALUES (?, ?, ?) ON CONFLICT (target) "
            "DO UPDATE SET at = max(at, excluded.at), until = max(until, excluded.until)",
            (item.target, item.at, item.until),
        )
        return True

    def _purge(self) -> None:
        """Delete what is over by both clocks, at most once a minute."""
        steady = self._steady()
        if steady < self._purge_due:
            return
        self._purge_due = steady + _PURGE_EVERY_S
        database, ran_s = self._database, self._ran_s()
        floor = self._floor.read(self._clock(), steady)
        database.execute("UPDATE running SET seconds = max(seconds, ?)", (ran_s,))
        database.execute("DELETE FROM claims WHERE expires_at < ?", (floor + USED_KEPT_S,))
        for target, (_, until, kept_until) in list(self._revoked.items()):
            if until < floor and kept_until < ran_s:
                database.execute("DELETE FROM revocations WHERE target = ?", (target,))
                database.execute("DELETE FROM revocation_lives WHERE target = ?", (target,))
                del self._revoked[target]


def read_head(path: Path, log: Path) -> tuple[str, int, str] | None:
    """Return the last record of the audit log `log` that a state file knows: writer, number, hash.

    A relay may be using the file.

    Raises:
        OSError: if the file can't be read or is not a state file.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found: tuple[str, int, str] | None = database.execute(
                "SELECT writer, seq, hash FROM audit_heads WHERE log = ?", (str(log),)
            ).fetchone()
            return found
    except sqlite3.Error as error:
        raise OSError(str(error)) from None
