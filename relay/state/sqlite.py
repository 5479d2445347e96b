"""Claims and revocations in a SQLite file: the state of one node.

WAL with synchronous=NORMAL: a commit survives the death of the process (kill -9) without an fsync each;
only a power cut can lose the last moments, and 30 seconds later those tokens have expired. Claims go
through a group commit on a thread, so that the event loop never waits for the disk.

Revocations are read into memory at start: the gate looks them up for every connection and must not wait.
The thread writes to that memory once they are on the disk, the loop only looks; one `dict` call each, which
the GIL keeps whole.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.core.tokens import USED_KEPT_S
from relay.group_commit import GroupCommit

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS claims (jti TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
DROP INDEX IF EXISTS claims_by_expiry;
CREATE TABLE IF NOT EXISTS revocations (
    target TEXT PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_heads (
    log TEXT PRIMARY KEY, writer TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL
) WITHOUT ROWID;
COMMIT;
"""
"""A transaction for writing: a read-only file is refused at start and not at the first claim.

Claims have no index by their end (earlier files had one): it cost each claim as much as half of the claim itself, and
once a minute a walk through those of the last minutes takes 20 ms for 200,000 of them, on the thread.
"""

_PURGE_EVERY_S = 60
_MAX_VARIABLES = 999
"""Values that one statement of any SQLite takes; since 3.32 there may be more."""
_ANSWER_WITHIN_S = 2.0
"""How long a claim may take before the gate answers 503: a client that waits longer has given up."""


@dataclass(frozen=True, slots=True)
class _Claim:
    jti: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Revocation:
    target: str
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class _Head:
    log: str
    writer: str
    seq: int
    hash: str


_Item = _Claim | _Revocation | _Head


class SqliteState:
    """A `State` in one file. Create it with `open`, end it with `aclose`."""

    def __init__(self, database: sqlite3.Connection, *, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._purged_at = 0.0
        self._revoked: dict[str, tuple[float, float]] = {
            target: (at, until)
            for target, at, until in database.execute("SELECT target, at, until FROM revocations")
        }
        self._writer: GroupCommit[_Item, bool] = GroupCommit(
            self._commit, name="relay-state", answer_within_s=_ANSWER_WITHIN_S
        )

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> "SqliteState":
        """Open or make the file at `path`. `clock` gives Unix seconds and decides when entries are forgotten.

        Raises:
            ConfigurationError: if it can't be opened or written, is locked or no SQLite file.
        """
        database = None
        try:
            database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1.0)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
            return cls(database, clock=clock)
        except sqlite3.Error as error:
            if database is not None:
                database.close()
            raise ConfigurationError(
                f"engine.state_path: {path} can't be used as the state file ({error}). "
                "Name a file in a folder that this process may write to."
            ) from None

    @property
    def waiting(self) -> int:
        """Claims and revocations that are not on the disk yet."""
        return self._writer.waiting

    async def claim(self, jti: str, *, expires_at: float) -> bool:
        """See `State.claim`."""
        return await self._submit(_Claim(jti, expires_at + USED_KEPT_S))

    async def revoke(self, key: str, *, at: float, until: float) -> None:
        """See `State.revoke`."""
        await self._submit(_Revocation(key, at, until))

    async def keep_head(self, log: Path, writer: str, seq: int, digest: str) -> None:
        """Keep the place of the audit log at `log`, so that its end can be proven; see `read_head`.

        Raises:
            UnavailableError: if the store did not answer.
        """
        await self._submit(_Head(str(log), writer, seq, digest))

    def revoked_at(self, key: str, *, now: float) -> float | None:
        """See `State.revoked_at`."""
        entry = self._revoked.get(key)
        if entry is None:
            return None
        at, until = entry
        return at if now < until else None

    async def aclose(self) -> None:
        """Write what waits and close the file."""
        await self._writer.aclose()
        self._database.close()

    async def _submit(self, item: _Item) -> bool:
        try:
            return await self._writer.submit(item)
        except (sqlite3.Error, TimeoutError, asyncio.QueueFull) as error:
            raise UnavailableError(
                Reason.STATE_UNAVAILABLE, f"The state file did not answer: {error!r}."
            ) from None

    def _commit(self, items: Sequence[_Item]) -> list[bool]:
        """Runs on the writer's thread: all of `items` in one transaction."""
        database = self._database
        self._purge(self._clock())
        if len(items) == 1:  # a statement alone is a transaction
            return self._remembered(items, [self._write(items[0])])
        if self._all_new(items):
            return [True] * len(items)
        database.execute("BEGIN IMMEDIATE")
        try:
            results = [self._write(item) for item in items]
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:  # a full disk has rolled it back already
                database.execute("ROLLBACK")
            raise
        return self._remembered(items, results)

    def _all_new(self, items: Sequence[_Item]) -> bool:
        """Write claims of which none was made before, as one statement; if there is anything else, write nothing.

        Each statement lets go of the interpreter, and to get it back from a busy event loop takes longer than the
        statement itself: one for all claims of a batch instead of one each.
        """
        rows = [value for item in items if isinstance(item, _Claim) for value in (item.jti, item.expires_at)]
        if len(rows) < 2 * len(items) or len(rows) > _MAX_VARIABLES:
            return False
        places = ", ".join(["(?, ?)"] * len(items))
        try:
            self._database.execute(f"INSERT INTO claims VALUES {places}", rows)  # noqa: S608  # only places
        except sqlite3.IntegrityError:  # one was: undone as a whole, and each is tried by itself
            return False
        return True

    def _remembered(self, items: Sequence[_Item], results: list[bool]) -> list[bool]:
        """Put what is on the disk now into memory too."""
        for item in items:
            if isinstance(item, _Revocation):
                self._remember(item)
        return results

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
        # the later one counts, or a clock that was set back could let somebody in again
        self._database.execute(
            "INSERT INTO revocations VALUES (?, ?, ?) ON CONFLICT (target) "
            "DO UPDATE SET at = max(at, excluded.at), until = max(until, excluded.until)",
            (item.target, item.at, item.until),
        )
        return True

    def _remember(self, item: _Revocation) -> None:
        at, until = self._revoked.get(item.target, (item.at, item.until))
        self._revoked[item.target] = (max(at, item.at), max(until, item.until))

    def _purge(self, now: float) -> None:
        if now - self._purged_at < _PURGE_EVERY_S:
            return
        self._purged_at = now
        self._database.execute("DELETE FROM claims WHERE expires_at < ?", (now,))
        self._database.execute("DELETE FROM revocations WHERE until < ?", (now,))
        for ref, (_, until) in list(self._revoked.items()):
            if until < now:
                del self._revoked[ref]


def read_head(path: Path, log: Path) -> tuple[str, int, str] | None:
    """Return the last place of an audit log that a state file keeps: writer, record, hash. A relay may run on it.

    Raises:
        OSError: if it can't be read, or is no state file.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found: tuple[str, int, str] | None = database.execute(
                "SELECT writer, seq, hash FROM audit_heads WHERE log = ?", (str(log),)
            ).fetchone()
            return found
    except sqlite3.Error as error:
        raise OSError(str(error)) from None
