"""Refresh families in the state file. See `relay.state.families` for what each call promises.

The calls run on a thread of their own, with a connection of their own: a refresh happens once in a quarter of an hour
for each session, and must not make the claims of tokens wait. SQLite orders the writers of one file, in one process
and between several.

Times are seconds of a clock that all processes of this machine share and that nobody can set: the system's monotonic
clock, moved so that it shows Unix time at the first start after a boot.
"""

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from relay.core.clock_floor import ClockFloor
from relay.core.errors import Reason, UnavailableError
from relay.state.families import (
    KEPT_TOKENS,
    SPENT_AFTER_S,
    Family,
    Over,
    Redeem,
    Refused,
    Renewal,
    Succeeded,
    Taken,
    Wait,
)
from relay.state.sqlite_file import open_file

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS refresh_clock (boot TEXT PRIMARY KEY, lead REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refresh_families (
    id INTEGER PRIMARY KEY, subject TEXT NOT NULL, logged_in_at REAL NOT NULL, is_known INTEGER NOT NULL,
    until REAL NOT NULL, ended INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS refresh_families_by_subject ON refresh_families (subject);
CREATE TABLE IF NOT EXISTS refresh_tokens (
    hash BLOB PRIMARY KEY, family INTEGER NOT NULL, number INTEGER NOT NULL, session TEXT NOT NULL,
    address TEXT NOT NULL, shown_at REAL, succeeded_at REAL, sealed BLOB, lease BLOB, leased_until REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refresh_tokens_by_family ON refresh_tokens (family, number);
CREATE INDEX IF NOT EXISTS refresh_tokens_by_session ON refresh_tokens (session) WHERE session != '';
COMMIT;
"""
"""A session that is refreshed every quarter of an hour takes 8 KB with tokens of 800 bytes: 150 MB for 20,000."""
_PURGE_EVERY_S = 600
_PAST_FOR_S = 3600
"""Seconds for which the wall clock, too, must be past the end of a family before it is deleted."""
_ANSWER_WITHIN_S = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Result = TypeVar("Result")


class SqliteFamilies:
    """A `Families` in one file. Create it with `open` and close it with `aclose`."""

    def __init__(
        self, database: sqlite3.Connection, *, clock: Callable[[], float], steady: Callable[[], float]
    ) -> None:
        self._database = database
        self._clock = clock
        self._steady = steady
        self._lead = self._lead_of_boot()
        self._floor = ClockFloor(_PAST_FOR_S)
        self._purge_due = steady()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relay-families")

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> "SqliteFamilies":
        """Open or create the file at `path`.

        Raises:
            ConfigurationError: if it can't be used.
        """
        # a refresh token is spent at the backend: its successor must survive a power cut
        with open_file(path, _SCHEMA, synchronous="FULL") as database:
            return cls(database, clock=clock, steady=steady)

    async def aclose(self) -> None:
        """Finish what runs and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        self._database.close()

    async def begin(self, token: bytes, family: Family, *, address: str, keep_s: float) -> None:
        """See `Families.begin`."""
        await self._run(partial(self._begin, token, family, address, keep_s))

    async def find(self, token: bytes) -> Family | None:
        """See `Families.find`."""
        return await self._run(partial(self._find, token))

    async def show(self, token: bytes) -> None:
        """See `Families.show`."""
        await self._run(partial(self._show, token))

    async def take(
        self, token: bytes, *, lease_s: float, unconfirmed_s: float, keep_s: float, is_shown: bool = True
    ) -> Taken:
        """See `Families.take`."""
        return await self._run(partial(self._take, token, lease_s, unconfirmed_s, keep_s, is_shown))

    async def complete(self, token: bytes, lease: bytes, renewal: Renewal) -> bool:
        """See `Families.complete`."""
        return await self._run(partial(self._complete, token, lease, renewal))

    async def release(self, token: bytes, lease: bytes) -> None:
        """See `Families.release`."""
        await self._run(partial(self._release, token, lease))

    async def end(self, token: bytes) -> Sequence[str]:
        """See `Families.end`."""
        return await self._run(partial(self._end, token))

    async def end_sessions(self, *, session: str = "", subject: str = "", until: float) -> Sequence[str]:
        """See `Families.end_sessions`."""
        return await self._run(partial(self._end_sessions, session, subject, until))

    async def _run(self, work: Callable[[], Result]) -> Result:
        """Run `work` in one transaction on the thread."""
        try:
            job = asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)
            # shielded: a caller that goes away must not leave a transaction whose result nobody knows
            return await asyncio.wait_for(asyncio.shield(job), _ANSWER_WITHIN_S)
        except (sqlite3.Error, TimeoutError, RuntimeError) as error:
            raise UnavailableError(
                Reason.STATE_UNAVAILABLE, f"The state file did not answer: {error!r}."
            ) from None

    def _transaction(self, work: Callable[[], Result]) -> Result:
        self._purge()
        self._database.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            self._database.execute("COMMIT")
            return result
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _now(self) -> float:
        return self._lead + self._steady()

    def _lead_of_boot(self) -> float:
        """Return what to add to the monotonic clock. The first process of a boot decides it for all."""
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        self._database.execute(
            "INSERT OR IGNORE INTO refresh_clock VALUES (?, ?)", (boot, self._clock() - self._steady())
        )
        lead: float
        (lead,) = self._database.execute("SELECT lead FROM refresh_clock WHERE boot = ?", (boot,)).fetchone()
        return lead

    # what follows runs on the thread, in a transaction

    def _one(self, statement: str, *values: object) -> Any:
        return self._database.execute(statement, values).fetchone()

    def _begin(self, token: bytes, family: Family, address: str, keep_s: float) -> None:
        number = self._new_family(family, is_known=True, until=self._now() + keep_s)
        self._add_token(token, number, 0, family.session, address)

    def _new_family(self, family: Family, *, is_known: bool, until: float) -> int:
        cursor = self._database.execute(
            "INSERT INTO refresh_families (subject, logged_in_at, is_known, until) VALUES (?, ?, ?, ?)",
            (family.subject, family.logged_in_at, is_known, until),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _add_token(self, token: bytes, family: int, number: int, session: str, address: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO refresh_tokens (hash, family, number, session, address) VALUES (?, ?, ?, ?, ?)",
            (token, family, number, session, address),
        )

    def _find(self, token: bytes) -> Family | None:
        row = self._one("SELECT family FROM refresh_tokens WHERE hash = ?", token)
        return None if row is None else self._family(row[0])

    def _family(self, family: int) -> Family | None:
        subject, logged_in_at, is_known = self._one(
            "SELECT subject, logged_in_at, is_known FROM refresh_families WHERE id = ?", family
        )
        (session,) = self._one(
            "SELECT session FROM refresh_tokens WHERE family = ? ORDER BY number DESC LIMIT 1", family
        )
        return Family(session=session, subject=subject, logged_in_at=logged_in_at) if is_known else None

    def _show(self, token: bytes) -> None:
        self._database.execute(
            "UPDATE refresh_tokens SET shown_at = ? WHERE hash = ? AND shown_at IS NULL", (self._now(), token)
        )

    def _take(
        self, token: bytes, lease_s: float, unconfirmed_s: float, keep_s: float, is_shown: bool
    ) -> Taken:
        now = self._now()
        if is_shown:
            self._show(token)
        row = self._one(
            "SELECT family, number, succeeded_at, sealed, leased_until FROM refresh_tokens WHERE hash = ?",
            token,
        )
        if row is None:  # the store was lost, or the log-in was not made here
            unknown = Family(session="", subject="", logged_in_at=0)
            family_id = self._new_family(unknown, is_known=False, until=now + keep_s)
            self._add_token(token, family_id, 0, "", "")
            self._show(token)
            return self._lease(token, now, lease_s, None)
        family_id, number, succeeded_at, sealed, leased_until = row
        family = self._family(family_id)
        (ended,) = self._one("SELECT ended FROM refresh_families WHERE id = ?", family_id)
        known = family or Family(session="", subject="", logged_in_at=0)
        if ended:
            return Refused(over=Over.ENDED, family=known)
        newest, newest_number, address = self._one(
            "SELECT hash, number, address FROM refresh_tokens WHERE family = ? ORDER BY number DESC LIMIT 1",
            family_id,
        )
        if number < newest_number:
            (first_shown,) = self._one(
                "SELECT min(shown_at) FROM refresh_tokens WHERE family = ? AND number > ?", family_id, number
            )
            if self._is_spent(now, succeeded_at, first_shown, unconfirmed_s):
                return Refused(over=Over.SPENT, family=known)
            sealed_for, sealed = self._one(
                "SELECT hash, sealed FROM refresh_tokens WHERE family = ? AND number <= ? AND sealed IS NOT NULL "
                "ORDER BY number DESC LIMIT 1",
                family_id,
                newest_number,
            )
            return Succeeded(
                sealed=sealed,
                sealed_for=sealed_for,
                newest=newest,
                family=known,
                address=address,
                is_late=first_shown is not None,
            )
        if sealed is not None and now - succeeded_at < SPENT_AFTER_S:  # the backend does not rotate
            return Succeeded(
                sealed=sealed,
                sealed_for=token,
                newest=token,
                family=known,
                address=address,
                is_late=False,
            )
        if leased_until is not None and now < leased_until:
            return Wait(for_s=leased_until - now)
        return self._lease(token, now, lease_s, family)

    @staticmethod
    def _is_spent(now: float, succeeded_at: float, first_shown: float | None, unconfirmed_s: float) -> bool:
        if first_shown is None:
            return now - succeeded_at > unconfirmed_s
        return now - first_shown > SPENT_AFTER_S

    def _lease(self, token: bytes, now: float, lease_s: float, family: Family | None) -> Redeem:
        lease = secrets.token_bytes(16)
        self._database.execute(
            "UPDATE refresh_tokens SET lease = ?, leased_until = ? WHERE hash = ?",
            (lease, now + lease_s, token),
        )
        return Redeem(lease=lease, family=family)

    def _complete(self, token: bytes, lease: bytes, renewal: Renewal) -> bool:
        now = self._now()
        row = self._one(
            "SELECT family, number FROM refresh_tokens JOIN refresh_families ON id = family "
            "WHERE hash = ? AND lease = ? AND ended = 0",
            token,
            lease,
        )
        if row is None:
            return False
        family_id, number = row
        family = renewal.family
        self._database.execute(
            "UPDATE refresh_families SET until = ? WHERE id = ?", (now + renewal.keep_s, family_id)
        )
        if family is not None:
            self._database.execute(
                "UPDATE refresh_families SET is_known = 1, subject = ?, logged_in_at = ? WHERE id = ? AND NOT is_known",
                (family.subject, family.logged_in_at, family_id),
            )
        session = family.session if family is not None else ""
        # only the newest tokens are handed out
        self._database.execute("UPDATE refresh_tokens SET sealed = NULL WHERE family = ?", (family_id,))
        self._database.execute(
            "UPDATE refresh_tokens SET succeeded_at = ?, sealed = ?, lease = NULL, leased_until = NULL "
            "WHERE hash = ?",
            (now, renewal.sealed, token),
        )
        if renewal.successor == token:
            self._database.execute(
                "UPDATE refresh_tokens SET session = ?, address = ? WHERE hash = ?",
                (session, renewal.address, token),
            )
        else:
            # of older tokens only the hash is needed, and each other session that they had
            self._database.execute(
                "UPDATE refresh_tokens SET address = '', session = CASE session WHEN ? THEN '' ELSE session END "
                "WHERE family = ?",
                (session, family_id),
            )
            self._add_token(renewal.successor, family_id, number + 1, session, renewal.address)
            self._database.execute(
                "DELETE FROM refresh_tokens WHERE family = ? AND number <= ?",
                (family_id, number + 1 - KEPT_TOKENS),
            )
        return True

    def _release(self, token: bytes, lease: bytes) -> None:
        self._database.execute(
            "UPDATE refresh_tokens SET lease = NULL, leased_until = NULL WHERE hash = ? AND lease = ?",
            (token, lease),
        )

    def _end(self, token: bytes) -> Sequence[str]:
        row = self._one(
            "SELECT family, is_known FROM refresh_tokens JOIN refresh_families ON id = family WHERE hash = ?",
            token,
        )
        if row is None:
            return []
        family, is_known = row
        if not is_known:  # the backend refuses it again; strangers' tokens must not fill the file
            self._database.execute("DELETE FROM refresh_tokens WHERE family = ?", (family,))
            self._database.execute("DELETE FROM refresh_families WHERE id = ?", (family,))
            return []
        return self._end_families([family])

    def _end_sessions(self, session: str, subject: str, until: float) -> Sequence[str]:
        if session:
            found = self._database.execute(
                "SELECT DISTINCT family FROM refresh_tokens JOIN refresh_families ON id = family "
                "WHERE session = ? AND session != '' AND logged_in_at <= ? AND ended = 0",
                (session, until),
            )
        else:
            found = self._database.execute(
                "SELECT id FROM refresh_families WHERE subject = ? AND logged_in_at <= ? AND ended = 0",
                (subject, until),
            )
        return self._end_families([row[0] for row in found.fetchall()])

    def _end_families(self, families: Sequence[int]) -> Sequence[str]:
        sessions: dict[str, None] = {}
        for family in families:
            self._database.execute("UPDATE refresh_families SET ended = 1 WHERE id = ?", (family,))
            self._database.execute(
                "UPDATE refresh_tokens SET sealed = NULL, lease = NULL WHERE family = ?", (family,)
            )
            rows = self._database.execute(
                "SELECT session FROM refresh_tokens WHERE family = ? AND session != '' ORDER BY number DESC",
                (family,),
            )
            sessions |= dict.fromkeys(session for (session,) in rows.fetchall())
        return list(sessions)

    def _purge(self) -> None:
        """Delete the families whose cookies are over by both clocks, at most every ten minutes."""
        steady = self._steady()
        if steady < self._purge_due:
            return
        self._purge_due = steady + _PURGE_EVERY_S
        over = min(self._floor.read(self._clock(), steady), self._now())
        self._database.execute(
            "DELETE FROM refresh_tokens WHERE family IN (SELECT id FROM refresh_families WHERE until < ?)",
            (over,),
        )
        self._database.execute("DELETE FROM refresh_families WHERE until < ?", (over,))
