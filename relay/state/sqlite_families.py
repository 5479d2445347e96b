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
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

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
    Young,
)
from relay.state.sqlite_file import open_file

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS refresh_clock (boot TEXT PRIMARY KEY, lead REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS login_families (
    id INTEGER PRIMARY KEY, subject TEXT NOT NULL, logged_in_at REAL NOT NULL, is_known INTEGER NOT NULL,
    until REAL NOT NULL, ended INTEGER NOT NULL DEFAULT 0, sessions TEXT NOT NULL, address TEXT NOT NULL,
    lease BLOB, leased_until REAL NOT NULL DEFAULT 0, tokens BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS login_families_by_subject ON login_families (subject);
CREATE TABLE IF NOT EXISTS login_tokens (hash BLOB PRIMARY KEY, family INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS login_sessions (session TEXT, family INTEGER, PRIMARY KEY (session, family)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS login_successors (family INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
COMMIT;
"""
"""All about the tokens of a family is one value in its row; `login_tokens` is there to find them.

A sealed value is about half a page long. In a row with others it would take a whole page, so it has a table of its own.
"""
_PURGE_EVERY_S = 600
_PURGED_AT_ONCE = 100
"""Families that are deleted in one transaction, 20 ms long: callers wait for it."""
_PAST_FOR_S = 3600
"""Seconds for which the wall clock, too, must be past the end of a family before it is deleted."""
_ANSWER_WITHIN_S = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TOKEN: Final = struct.Struct("<16sII")
_UNKNOWN: Final = Family(session="", subject="", logged_in_at=0)

Result = TypeVar("Result")


@dataclass(slots=True)
class _Token:
    """A token of a family. The times are whole seconds, 0: never."""

    hash: bytes
    shown_at: int = 0
    redeemed_at: int = 0


@dataclass(slots=True)
class _Row:
    """A family as it is stored. `sessions` and `tokens` have the newest at the end."""

    id: int
    subject: str
    logged_in_at: float
    is_known: bool
    ended: bool
    sessions: list[str]
    address: str
    lease: bytes | None
    leased_until: float
    tokens: list[_Token]

    @property
    def family(self) -> Family:
        return Family(session=self.sessions[-1], subject=self.subject, logged_in_at=self.logged_in_at)

    @property
    def made_at(self) -> float:
        """When the newest token was made by a refresh, 0: by none."""
        return self.tokens[-2].redeemed_at if len(self.tokens) > 1 else 0

    def position(self, token: bytes) -> int:
        return next(at for at, one in enumerate(self.tokens) if one.hash == token)

    @property
    def packed(self) -> bytes:
        return b"".join(_TOKEN.pack(one.hash, one.shown_at, one.redeemed_at) for one in self.tokens)

    def is_spent(self, at: int, now: float, unconfirmed_s: float) -> bool:
        """Tell whether the token at a position is over, because a newer one was shown or it is too old."""
        shown = [one.shown_at for one in self.tokens[at + 1 :] if one.shown_at]
        if shown:
            return now - min(shown) > SPENT_AFTER_S
        return now - self.tokens[at].redeemed_at > unconfirmed_s


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
        return await self._run(partial(self._take, token, lease_s, unconfirmed_s, keep_s, is_shown, young_s))

    async def complete(self, token: bytes, lease: bytes, renewal: Renewal) -> bool:
        """See `Families.complete`."""
        return await self._run(partial(self._complete, token, lease, renewal))

    async def release(self, token: bytes, lease: bytes) -> None:
        """See `Families.release`."""
        await self._run(partial(self._release, token, lease))

    async def spend(self, token: bytes, lease: bytes) -> None:
        """See `Families.spend`."""
        await self._run(partial(self._spend, token, lease))

    async def end(self, token: bytes) -> Sequence[str]:
        """See `Families.end`."""
        return await self._run(partial(self._end, token))

    async def end_sessions(self, *, session: str = "", subject: str = "") -> Sequence[str]:
        """See `Families.end_sessions`."""
        return await self._run(partial(self._end_sessions, session, subject))

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
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._purge()
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

    def _load(self, token: bytes) -> _Row | None:
        """Return the family of a token."""
        row = self._one(
            "SELECT id, subject, logged_in_at, is_known, ended, sessions, address, lease, leased_until, tokens "
            "FROM login_tokens JOIN login_families ON id = family WHERE hash = ?",
            token,
        )
        return None if row is None else self._read(row)

    @staticmethod
    def _read(row: Sequence[Any]) -> _Row:
        number, subject, logged_in_at, is_known, ended, sessions, address, lease, leased_until, tokens = row
        return _Row(
            number,
            subject,
            logged_in_at,
            bool(is_known),
            bool(ended),
            sessions.split("\n"),
            address,
            lease,
            leased_until,
            [_Token(*one) for one in _TOKEN.iter_unpack(tokens)],
        )

    def _set(self, family: int, **columns: object) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        self._database.execute(
            f"UPDATE login_families SET {names} WHERE id = ?",  # noqa: S608  # names of this module
            (*columns.values(), family),
        )

    def _begin(self, token: bytes, family: Family | None, address: str, keep_s: float) -> None:
        about = family or _UNKNOWN
        cursor = self._database.execute(
            "INSERT INTO login_families (subject, logged_in_at, is_known, until, sessions, address, tokens) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                about.subject,
                about.logged_in_at,
                family is not None,
                self._now() + keep_s,
                about.session,
                address,
                _TOKEN.pack(token, 0, 0),
            ),
        )
        assert cursor.lastrowid is not None
        # a backend may give out one token at each log-in of a user: it is then of the newest log-in
        self._database.execute("INSERT OR REPLACE INTO login_tokens VALUES (?, ?)", (token, cursor.lastrowid))
        self._add_session(about.session, cursor.lastrowid)

    def _add_session(self, session: str, family: int) -> None:
        if session:
            self._database.execute("INSERT OR IGNORE INTO login_sessions VALUES (?, ?)", (session, family))

    def _find(self, token: bytes) -> Family | None:
        row = self._load(token)
        return row.family if row is not None and row.is_known else None

    def _show(self, token: bytes) -> None:
        if row := self._load(token):
            self._note_shown(row, row.position(token))

    def _note_shown(self, row: _Row, at: int) -> None:
        # the first one has no predecessor that it could spend
        if at and not row.tokens[at].shown_at:
            row.tokens[at].shown_at = int(self._now())
            self._set(row.id, tokens=row.packed)

    def _take(
        self,
        token: bytes,
        lease_s: float,
        unconfirmed_s: float,
        keep_s: float,
        is_shown: bool,
        young_s: float,
    ) -> Taken:
        now = self._now()
        row = self._load(token)
        if row is None:  # the store was lost, or the log-in was not made here
            self._begin(token, None, "", keep_s)
            row = self._load(token)
            assert row is not None
        if row.ended:
            return Refused(over=Over.ENDED, family=row.family)
        at, newest = row.position(token), row.tokens[-1]
        if is_shown:
            self._note_shown(row, at)
        if row.tokens[at] is not newest and row.is_spent(at, now, unconfirmed_s):
            return Refused(over=Over.SPENT, family=row.family)
        is_recent = now - newest.redeemed_at < SPENT_AFTER_S
        found = self._one("SELECT sealed FROM login_successors WHERE family = ?", row.id)
        if found is None and newest.redeemed_at:
            return Refused(over=Over.UNUSABLE if is_recent else Over.LOST, family=row.family)
        # `is_recent`: a backend that does not rotate; all who come together get one access token
        if found is not None and (row.tokens[at] is not newest or is_recent):
            return Succeeded(
                sealed=found[0],
                sealed_for=(newest if newest.redeemed_at else row.tokens[-2]).hash,
                newest=newest.hash,
                family=row.family,
                address=row.address,
            )
        if now - row.made_at < young_s:
            return Young()
        if now < row.leased_until:
            return Wait(for_s=row.leased_until - now)
        lease = secrets.token_bytes(16)
        self._set(row.id, lease=lease, leased_until=now + lease_s)
        return Redeem(lease=lease, family=row.family if row.is_known else None)

    def _leased(self, token: bytes, lease: bytes) -> _Row | None:
        """Return the family of a token if it was not ended and the lease is the one that it has."""
        row = self._load(token)
        return row if row is not None and row.lease == lease and not row.ended else None

    def _complete(self, token: bytes, lease: bytes, renewal: Renewal) -> bool:
        row = self._leased(token, lease)
        if row is None:
            return False
        now, about = self._now(), renewal.family or _UNKNOWN
        if not row.is_known:
            row.subject, row.logged_in_at = about.subject, about.logged_in_at
        row.tokens[-1].redeemed_at = int(now)
        if renewal.successor != token:
            row.tokens.append(_Token(renewal.successor))
            self._database.execute(
                "INSERT OR REPLACE INTO login_tokens VALUES (?, ?)", (renewal.successor, row.id)
            )
        if about.session not in row.sessions:
            self._add_session(about.session, row.id)
        row.sessions = [*(one for one in row.sessions if one not in ("", about.session)), about.session]
        self._trim(row)
        self._set(
            row.id,
            subject=row.subject,
            logged_in_at=row.logged_in_at,
            is_known=row.is_known or renewal.family is not None,
            until=now + renewal.keep_s,
            sessions="\n".join(row.sessions),
            address=renewal.address,
            lease=None,
            leased_until=0,
            tokens=row.packed,
        )
        self._database.execute(
            "INSERT OR REPLACE INTO login_successors VALUES (?, ?)", (row.id, renewal.sealed)
        )
        return True

    def _trim(self, row: _Row) -> None:
        self._delete_tokens(row.id, row.tokens[:-KEPT_TOKENS])
        self._delete_sessions(row.id, row.sessions[:-KEPT_TOKENS])
        row.tokens, row.sessions = row.tokens[-KEPT_TOKENS:], row.sessions[-KEPT_TOKENS:]

    def _delete_tokens(self, family: int, tokens: Iterable[_Token]) -> None:
        self._database.executemany(
            "DELETE FROM login_tokens WHERE hash = ? AND family = ?", [(one.hash, family) for one in tokens]
        )

    def _delete_sessions(self, family: int, sessions: Iterable[str]) -> None:
        self._database.executemany(
            "DELETE FROM login_sessions WHERE session = ? AND family = ?",
            [(one, family) for one in sessions],
        )

    def _release(self, token: bytes, lease: bytes) -> None:
        row = self._leased(token, lease)
        if row is not None and not row.is_known and not row.tokens[-1].redeemed_at and len(row.tokens) == 1:
            self._forget(row)  # strangers' tokens must not fill the file while the backend is down
        elif row is not None:
            self._set(row.id, lease=None, leased_until=0)

    def _spend(self, token: bytes, lease: bytes) -> None:
        if row := self._leased(token, lease):
            row.tokens[-1].redeemed_at = int(self._now())
            self._set(row.id, lease=None, leased_until=0, tokens=row.packed)
            self._database.execute("DELETE FROM login_successors WHERE family = ?", (row.id,))

    def _end(self, token: bytes) -> Sequence[str]:
        row = self._load(token)
        if row is None:
            return []
        if not row.is_known:  # the backend refuses it again; strangers' tokens must not fill the file
            self._forget(row)
            return []
        return self._end_families([(row.id, "\n".join(row.sessions))])

    def _end_sessions(self, session: str, subject: str) -> Sequence[str]:
        by, value = (
            ("id IN (SELECT family FROM login_sessions WHERE session = ?)", session)
            if session
            else ("subject = ?", subject)
        )
        found = self._database.execute(
            f"SELECT id, sessions FROM login_families WHERE {by} AND is_known AND NOT ended",  # noqa: S608  # see above
            (value,),
        )
        return self._end_families(found.fetchall())

    def _end_families(self, families: Iterable[tuple[int, str]]) -> Sequence[str]:
        ended: dict[str, None] = {}
        for family, sessions in families:
            self._set(family, ended=True, lease=None, leased_until=0)
            self._database.execute("DELETE FROM login_successors WHERE family = ?", (family,))
            ended |= dict.fromkeys(one for one in reversed(sessions.split("\n")) if one)
        return list(ended)

    def _forget(self, row: _Row) -> None:
        self._delete_tokens(row.id, row.tokens)
        self._delete_sessions(row.id, row.sessions)
        self._database.execute("DELETE FROM login_successors WHERE family = ?", (row.id,))
        self._database.execute("DELETE FROM login_families WHERE id = ?", (row.id,))

    def _purge(self) -> None:
        """Delete the families whose cookies are over by both clocks, at most every ten minutes."""
        steady = self._steady()
        if steady < self._purge_due:
            return
        over = min(self._floor.read(self._clock(), steady), self._now())
        found = self._database.execute(
            "SELECT id, subject, logged_in_at, is_known, ended, sessions, address, lease, leased_until, tokens "
            "FROM login_families WHERE until < ? LIMIT ?",
            (over, _PURGED_AT_ONCE),
        ).fetchall()
        for row in found:
            self._forget(self._read(row))
        if len(found) < _PURGED_AT_ONCE:  # the rest is deleted by the next calls
            self._purge_due = steady + _PURGE_EVERY_S
